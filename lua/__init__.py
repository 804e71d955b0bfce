"""One script a transition; `README.md` beside this file has the state chart and the key table."""
