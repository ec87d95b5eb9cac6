"""What is for sale: categories, products, reviews; pages, JSON API, CSV export, generated data."""
