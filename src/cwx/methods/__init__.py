"""The LightningModules, one file each. They exchange files and never import each other.

The constructor of a method takes the subject and the settings, all by keyword. A method has

    stage        its name in logs and files
    batches      the LightningDataModule to fit it on
    epochs       the number of epochs to fit; a checkpoint is written after each epoch

and an explanation method also has `explanations()`.
"""
