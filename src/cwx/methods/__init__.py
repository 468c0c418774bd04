"""The LightningModules, one file each. They meet in files and never import each other.

A method is built with what it works on and its settings, all by keyword, and offers

    stage        the name its logs and files go by
    batches      the LightningDataModule to fit it on
    epochs       how many of that module's epochs to fit; checkpoints fall between them

and a method that explains also `explanations()`.
"""
