"""The report's style sheet: light and dark, narrow and wide, and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fcfcfd;
  --card: #ffffff; --line: #d9dce1; --good: #2a7de1; --bad: #d33a2c; --pass: #18794e;
  --pass-tint: #e6f6ec; --fail: #b42318; --fail-tint: #fdeceb; --limit: #1c2024; --heat: 212; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a6abb5; --paper: #111316;
  --card: #191b1f; --line: #363a41; --good: #5aa2f5; --bad: #ff7a6b; --pass: #5bd69a;
  --pass-tint: #12291e; --fail: #ff9285; --fail-tint: #33181a; --limit: #edeef0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header { border: 1px solid var(--line); border-left-width: .5rem; border-radius: .5rem;
  padding: 1.25rem 1.5rem; }
header.passed { border-left-color: var(--pass); background: var(--pass-tint); }
header.failed { border-left-color: var(--fail); background: var(--fail-tint); }
header .mark { margin: 0; font-size: 2rem; font-weight: 700; line-height: 1.1; }
header.passed .mark { color: var(--pass); } header.failed .mark { color: var(--fail); }
h1 { margin: .25rem 0 .5rem; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: .25rem 0; } .failures { padding-left: 1.2rem; overflow-wrap: anywhere; }
.where { font-weight: 600; } header .unchecked { margin-top: .75rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.3rem; } h3 { margin: 1.75rem 0 .25rem; }
.note { color: var(--soft); margin: 0 0 .9rem; max-width: 46rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem;
  margin: 1.5rem 0 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.notes { color: var(--soft); padding-left: 1.2rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
.word { text-align: left; } .number { white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--card); }
tr + tr td { border-top: 1px solid var(--line); }
details { margin-top: .75rem; } summary { cursor: pointer; color: var(--soft); }
details[open] summary { margin-bottom: .5rem; }
.bars .row, .heat .row { display: grid; grid-template-columns: 5.5rem 1fr; gap: .75rem;
  align-items: center; }
.bars .row { grid-template-columns: 5.5rem 1fr 5rem; }
.name { color: var(--soft); font-size: .85rem; white-space: nowrap; }
.value { font-size: .85rem; text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 1.1rem; }
.bars .track { border-left: 1px solid var(--line); }
.track i { position: absolute; inset: .15rem auto .15rem 0; border-radius: 0 .2rem .2rem 0; }
.track b { position: absolute; top: -.05rem; bottom: -.05rem; border-left: 2px dashed
  var(--limit); opacity: .55; }
i.good { background: var(--good); } i.bad { background: var(--bad); }
.axis .track span { position: absolute; transform: translateX(-50%); font-size: .72rem;
  color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr));
  gap: .75rem; }
figure { margin: 0; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); } figcaption { font-size: .9rem; margin-bottom: .4rem; }
svg { display: block; width: 100%; height: auto; } svg .good { fill: var(--good); }
svg .bad { fill: var(--bad); } svg line { stroke: var(--line); }
svg .limit { stroke: var(--limit); stroke-dasharray: 4 3; opacity: .7; }
svg text { fill: var(--soft); font-size: 15px; text-anchor: middle; }
.heat .row > div { display: grid; grid-template-columns: repeat(auto-fit, minmax(.5rem, 1fr));
  gap: 2px; } .heat .row { padding: 1px 0; }
.heat i, .legend i { height: 1.2rem; border-radius: 2px; outline: 1px solid var(--line);
  outline-offset: -1px;
  background: color-mix(in srgb, var(--good) calc(var(--share, 0) * 100%), var(--card)); }
i.none { background: repeating-linear-gradient(45deg, var(--card), var(--card) 3px,
  var(--bad) 3px, var(--bad) 4px); }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem; color: var(--soft);
  font-size: .85rem; } .legend i { width: 1.2rem; margin-right: .35rem; }
.legend span { display: inline-flex; align-items: center; margin-right: .5rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; }
  .bars .row { grid-template-columns: 4rem 1fr 4rem; gap: .4rem; }
  .heat .row { grid-template-columns: 4rem 1fr; gap: .4rem; } header { padding: 1rem; }
  h2 { font-size: 1.15rem; } }
@media print { body { background: none; } section { break-inside: avoid; } }
"""
