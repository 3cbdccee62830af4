"""The generator of the pre-finetuning sample that trunkline ships, and the grammar that it draws from."""
