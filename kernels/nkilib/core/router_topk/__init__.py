"""Router of a mixture of experts."""
