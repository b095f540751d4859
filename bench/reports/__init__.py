"""What a result looks like: the document, and the tables, pages and plots that show it."""
