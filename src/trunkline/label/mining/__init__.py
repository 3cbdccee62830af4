"""Mining text pairs for pre-finetuning out of tables, conversations and plain text."""
