"""Components of a model, selections of them, and experiments over them, without tensors."""
