(() => {
  let known = document.documentElement.dataset.state;
  const look = async () => {
    try {
      if (!document.hidden) {
        const a = await fetch(location.href, { method: 'HEAD', cache: 'no-store', redirect: 'manual', credentials: 'omit' });
        const state = a.headers.get('Portal-State') || 'gone';
        known = known || state;
        if (state !== known) { location.reload(); return; }
      }
    } catch (e) { /* no answer: look again */ }
    setTimeout(look, 1000);
  };
  if (known !== 'active') setTimeout(look, 1000);
})();
