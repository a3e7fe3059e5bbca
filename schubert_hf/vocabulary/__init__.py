"""A smaller vocabulary: which words stay, the tokenizer without the others, and the model without their rows."""
