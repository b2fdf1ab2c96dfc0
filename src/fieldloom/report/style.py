"""The style sheet of a report's page."""

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#222}
h1{font-size:1.5rem}figure{margin:2rem
0}figcaption{color:#555}img{max-width:100%;image-rendering:auto}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px
solid #ddd}
td.n{text-align:right}td.of{color:#555}"""
