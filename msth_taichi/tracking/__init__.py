"""What a training shows while it runs, and the report it leaves behind."""
