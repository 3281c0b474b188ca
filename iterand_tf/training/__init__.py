"""What runs one configuration: its options, what they name, the training itself and the files that it leaves."""
