// Waits until all that was given has arrived. Answers whether something else was asked for, or it was cancelled, meanwhile.
async () => {
  const mine = (window.asked = (window.asked ?? 0) + 1);
  window.begun = false;
  while (coming() && window.asked === mine) await new Promise((done) => setTimeout(done, 100));
  if (window.asked !== mine) return true;
  window.begun = true;
  return false;
}
