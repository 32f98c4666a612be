// Runs before the first paint, so that a dark page never flashes white.
try {
  const theme = localStorage.getItem("myna.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch { /* storage is off: the system's theme it is */ }
