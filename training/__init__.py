"""The recipe of the built-in model: facts, corpus, tokenizer, training, measurement. See README.md."""
