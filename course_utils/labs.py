"""The labs' own data and networks, which no chapter shows. What is odd about them, find out.

Every network here was trained by a script in ``data/build``.
"""
