"""A trained model in the forms of other libraries: Transformers, PaddleNLP, Paddle's inference library."""
