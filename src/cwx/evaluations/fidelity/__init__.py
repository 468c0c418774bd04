"""Distance between training on S and an expert's trajectory, beside what real data reach."""
