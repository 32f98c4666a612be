// The values under the pointer. Touch and keys work too: a chart has the focus, arrows move along.
const say = (v) => (v !== 0 && Math.abs(v) < 0.001 ? v.toExponential(2) : String(+v.toPrecision(5)));
const charts = JSON.parse(document.getElementById('charts').textContent);
document.querySelectorAll('figure.chart').forEach((figure, number) => {
  const { left, right, first, last, series } = charts[number];
  const svg = figure.querySelector('svg');
  const line = figure.querySelector('.at');
  const out = figure.querySelector('output');
  const steps = series[0].x;
  let place = 0;
  const show = (step) => {
    const nearest = (xs) => xs.reduce((best, x, i) => (Math.abs(x - step) < Math.abs(xs[best] - step) ? i : best), 0);
    place = nearest(steps);
    const at = last > first ? left + ((steps[place] - first) / (last - first)) * (right - left) : (left + right) / 2;
    line.setAttribute('x1', at);
    line.setAttribute('x2', at);
    line.removeAttribute('hidden');
    out.textContent = `step ${steps[place]}   ` + series.map((s) => `${s.name} ${say(s.y[nearest(s.x)])}`).join('   ');
  };
  const hide = () => { line.setAttribute('hidden', ''); out.textContent = ''; };
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(first + ((x - left) / (right - left)) * (last - first));
  });
  svg.addEventListener('pointerleave', hide);
  figure.addEventListener('blur', hide);
  figure.addEventListener('keydown', (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); show(steps[Math.min(Math.max(place + by, 0), steps.length - 1)]); }
  });
});
