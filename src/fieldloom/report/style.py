"""The style sheet of a report's page, and its one script."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1f23;--soft:#59616b;--line:#d9dde2;
--card:#f5f6f8;--link:#0b5cad;--warn:#8a4b00}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e9ebee;--soft:#a7afb9;
--line:#343a42;--card:#1e2228;--link:#8ab8ee;--warn:#f0b866}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:anywhere}
main{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:0 0 .3rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.3rem 0}
a{color:var(--link)}
section{margin:0 0 1.2rem}
.lead,.note,figcaption,th,footer dt{color:var(--soft)}
.warn{color:var(--warn)}
figure{margin:1.4rem 0}
figcaption{font-size:.9rem;margin-top:.4rem}
img{display:block;max-width:100%;height:auto}
img.pixels{image-rendering:pixelated}
.tiles{display:grid;gap:.4rem;margin:0;padding:0;list-style:none;
grid-template-columns:repeat(auto-fill,minmax(min(var(--tile),100%),1fr))}
.tiles img{width:100%;border-radius:3px;outline:1px solid var(--line)}
.tiles img+img{margin-top:2px}
.tiles span{display:block;font-size:.8rem;color:var(--soft);text-align:center;white-space:nowrap;
overflow:hidden;text-overflow:ellipsis}
.n1{--tile:26rem}.n2{--tile:20rem}.n8{--tile:13rem}.n16{--tile:8.5rem}.n32{--tile:6.8rem}
.n64{--tile:5rem}
.two{grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr))}
@media (max-width:40rem){.n8{--tile:8.5rem}.n16,.n32{--tile:5rem}.n64{--tile:3.8rem}
.n64 li:nth-child(n+25){display:none}}
audio{display:block;width:100%;margin-top:.3rem}
article{border-top:1px solid var(--line);padding:1.1rem 0 .6rem}
.numbers{display:grid;gap:.5rem;margin:.8rem 0 .4rem;
grid-template-columns:repeat(auto-fill,minmax(min(9.2rem,100%),1fr))}
.numbers div{background:var(--card);border-radius:6px;padding:.5rem .7rem}
.numbers dt{font-size:.85rem;color:var(--soft)}
.numbers dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
.numbers dd.note{font-size:.8rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;overflow-wrap:normal}
td,th{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td.how{min-width:14rem}
code{font:.88rem/1.5 ui-monospace,monospace}
pre{margin:.2rem 0;padding:.5rem .7rem;background:var(--card);border-radius:6px;
white-space:pre-wrap}pre span{white-space:nowrap}
article figure>img{max-width:min(100%,38rem)}
details{border-top:1px solid var(--line);padding:.8rem 0}
summary{cursor:pointer;font-weight:600}
details img{background:#fff;border-radius:6px}
footer{border-top:1px solid var(--line);padding-top:1rem;font-size:.9rem}
footer dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.15rem 1rem;margin:0}
footer dd{margin:0;min-width:0}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;
--card:#f2f2f2}body{font-size:11pt}main{max-width:none;padding:0}audio{display:none}
article,figure,tr{break-inside:avoid}details::details-content{content-visibility:visible;
block-size:auto}.scroll{overflow:visible}}
"""

SCRIPT = """const all = (which, act) => document.querySelectorAll(which).forEach(act);
addEventListener("beforeprint", () =>
  all("details:not([open])", x => { x.open = true; x.dataset.folded = ""; }));
addEventListener("afterprint", () =>
  all("[data-folded]", x => { x.open = false; delete x.dataset.folded; }));"""
"""Unfolds what is folded while the page is printed."""
