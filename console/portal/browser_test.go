package portal

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// needChromium skips without the browser; where the kernel tests are required it fails.
func needChromium(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err == nil {
		return
	}
	if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
		t.Fatal("needs chromium")
	}
	t.Skip("needs chromium")
}

// chromium runs the browser once, with nothing but the given site to talk to.
func chromium(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
		"--host-resolver-rules=MAP * 127.0.0.1", "--user-data-dir=" + t.TempDir()}, args...)
	cmd := exec.CommandContext(t.Context(), "chromium", args...)
	cmd.WaitDelay = 5 * time.Second
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s", errs.String())
	return string(out)
}

// A real browser shows the page for a site that was asked for by plain HTTP, and
// goes on to that site by itself when access is back.
func TestKernelBrowser(t *testing.T) {
	needChromium(t)
	var paid atomic.Bool
	s, err := New(testOptions(), func(netip.Addr) Visitor {
		if paid.Load() {
			return Visitor{StateActive, 1001}
		}
		return Visitor{StatePaused, 1001}
	}, nil, quiet())
	require.NoError(t, err)
	page := s.handler(false)
	looks := atomic.Int32{}
	// What the kernel does: to the portal while paused, then to the real site.
	addr := serveOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if paid.Load() {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<title>the real site</title><p>the real site"))
			return
		}
		if r.Method == http.MethodHead && looks.Add(1) == 2 {
			paid.Store(true)
		}
		page.ServeHTTP(w, r)
	}))
	_, port, _ := strings.Cut(addr, ":")
	site := "http://any.example.org:" + port + "/news?x=1"

	dom := chromium(t, "--dump-dom", "--virtual-time-budget=500", site)
	require.Contains(t, dom, "Internet access is paused")
	require.NotContains(t, dom, "the real site")
	dom = chromium(t, "--dump-dom", "--virtual-time-budget=20000", site)
	require.Contains(t, dom, "the real site", "it went on by itself")
	require.GreaterOrEqual(t, looks.Load(), int32(2))
}

// With USHER_SCREENSHOTS=DIR pictures of the page are left there, for eyes.
func TestKernelScreenshots(t *testing.T) {
	dir := os.Getenv("USHER_SCREENSHOTS")
	if dir == "" {
		t.Skip("set USHER_SCREENSHOTS to a folder for pictures of the page")
	}
	needChromium(t)
	for _, st := range States() {
		s, err := New(testOptions(), func(netip.Addr) Visitor { return Visitor{st, 1001} }, nil, quiet())
		require.NoError(t, err)
		addr := listenOn(t, s, false)
		for name, size := range map[string]string{"phone": "390,844", "desktop": "1280,800"} {
			lang := map[string]string{"phone": "uk", "desktop": "en"}[name]
			file := filepath.Join(dir, fmt.Sprintf("%s-%s.png", st, name))
			chromium(t, "--screenshot="+file, "--window-size="+size, "--accept-lang="+lang, "http://"+addr+"/")
			require.FileExists(t, file)
		}
	}
}
