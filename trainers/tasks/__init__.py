"""What is trained: a task gives the loop its order, batches and losses; the loop is the same for all."""
