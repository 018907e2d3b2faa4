// Headroom without a framework: keep the page live, and small conveniences. Every page is complete without this file.
(() => {
  "use strict";

  const POLL_MS = 1000, LONGEST_WAIT_MS = 60000;
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);

  // --- Swap "patch": change only what differs, so that focus, selection, scroll and open menus survive -----------

  /** Make `old` look like `fresh`. Elements marked data-keep belong to a script (the drawn chart) and stay as they are;
      what somebody has opened stays open. */
  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
      old.replaceWith(fresh);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.hasAttribute("data-keep")) return;
    const wanted = new Set(fresh.getAttributeNames());
    for (const name of old.getAttributeNames()) {
      if (!wanted.has(name) && name !== "class" && name !== "open") old.removeAttribute(name); // what is unfolded stays so
    }
    for (const name of wanted) {
      if (old.getAttribute(name) !== fresh.getAttribute(name)) old.setAttribute(name, fresh.getAttribute(name));
    }
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((node, i) => (i < before.length ? patch(before[i], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  }

  const flashing = () => [...document.querySelectorAll("#used, [data-flash]")].map((number) => [number, number.textContent]);

  function flashIfChanged(number, before) {
    if (!number.isConnected || number.textContent === before) return;
    number.classList.remove("flash");
    void number.offsetWidth; // restarts the animation
    number.classList.add("flash");
  }

  htmx.defineExtension("patch", {
    isInlineSwap: (style) => style === "patch",
    handleSwap(style, target, fragment) {
      if (style !== "patch") return false;
      const fresh = fragment.firstElementChild;
      if (!fresh) return false;
      const before = flashing();
      patch(target, fresh);
      for (const [number, text] of before) flashIfChanged(number, text);
      return [];
    },
  });

  // --- Polling: only while someone looks, slower and slower after errors -------------------------------------------

  let waitMs = 0, retryAt = 0;
  const isPoll = (event) => event.detail.elt?.hasAttribute("data-live");

  /** state: live | delayed | lost. The time is the server's: "data to", never this computer's clock. */
  function showFreshness(state, dataTo) {
    const pill = byId("freshness");
    if (!pill) return;
    const words = { live: "Live, data to", delayed: "Delayed, data to", lost: "No connection, data to" };
    pill.classList.remove("pill--live", "pill--delayed", "pill--lost");
    pill.classList.add(`pill--${state}`);
    pill.querySelector(".pill__word").textContent = words[state];
    if (dataTo) pill.querySelector("time").textContent = dataTo;
    root.classList.toggle("is-stale", state === "lost");
  }

  function announce(text) { byId("announce").textContent = text; }

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (isPoll(event) && (document.hidden || Date.now() < retryAt)) event.preventDefault();
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    const { xhr, successful } = event.detail;
    if (!isPoll(event)) return;
    if (!successful) return lost(xhr);
    if (waitMs) announce("Connected again. Numbers are live.");
    waitMs = retryAt = 0;
    showFreshness(xhr.getResponseHeader("X-Data-Delayed") === "true" ? "delayed" : "live", xhr.getResponseHeader("X-Data-To"));
  });

  function lost(xhr) {
    if (xhr.getResponseHeader?.("HX-Redirect")) return; // signed out: htmx goes to the sign-in page
    if (!waitMs) announce("Connection lost. The numbers shown are the last good ones.");
    waitMs = Math.min(waitMs ? waitMs * 2 : POLL_MS * 2, LONGEST_WAIT_MS);
    retryAt = Date.now() + waitMs;
    showFreshness("lost");
  }

  function refreshNow() {
    const live = document.querySelector("[data-live]");
    if (live && !document.hidden) htmx.trigger(live, "refresh");
  }
  document.addEventListener("visibilitychange", refreshNow);
  window.addEventListener("online", () => { retryAt = 0; refreshNow(); });

  // --- Theme: the cookie makes the next first paint right; here it saves the reload --------------------------------

  function chooseTheme(form, theme) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
    root.dataset.theme = theme;
    document.querySelector('meta[name="color-scheme"]').content = theme === "auto" ? "light dark" : theme;
    for (const button of form.querySelectorAll("button[name=theme]")) {
      button.setAttribute("aria-pressed", String(button.value === theme));
    }
    document.dispatchEvent(new Event("themechange"));
  }
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-theme-switch]") || !event.submitter) return;
    event.preventDefault();
    chooseTheme(event.target, event.submitter.value);
  });

  // --- Menus close as people expect ----------------------------------------------------------------------------------

  const openMenus = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("click", (event) => {
    for (const menu of openMenus()) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of openMenus()) { menu.open = false; menu.querySelector("summary").focus(); }
  });

  // --- Copy, and focus into a form that was opened in place ----------------------------------------------------------

  function offerCopy() {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
    announce("Copied.");
    button.textContent = "Copied";
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id !== "budget") return;
    const card = byId("budget");
    (card?.querySelector("[aria-invalid=true]") || card?.querySelector("input:not([type=hidden]), a.button"))?.focus();
  });

  offerCopy();
  const live = document.querySelector("[data-live]");
  if (live) showFreshness(live.dataset.delayed === "true" ? "delayed" : "live");
})();
