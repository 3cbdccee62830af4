"""The encoder (trunk, fork, branches), LoRA adapters, the PEFT format, encoder resolution and the bundle's files."""
