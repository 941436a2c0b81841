package portal

import (
	"fmt"
	"image/color"
	"image/png"
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
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr",
		"--host-resolver-rules=MAP * 127.0.0.1", "--user-data-dir=" + t.TempDir()}, args...)
	cmd := exec.CommandContext(t.Context(), "chromium", args...)
	cmd.WaitDelay = 5 * time.Second
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s", errs.String())
	require.NotContains(t, errs.String(), "Content Security Policy", "the page needs what its own policy forbids")
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

// The page fits a phone and a desk: it is a card in the middle with background
// on both sides, so nothing runs out of the window. The pictures stay as
// artifacts for eyes.
func TestKernelBrowserLayout(t *testing.T) {
	needChromium(t)
	dir := os.Getenv("USHER_ARTIFACTS")
	if dir == "" {
		dir = t.TempDir()
	}
	o := testOptions()
	o.Contact = "support@a-very-long-name-of-a-provider.example.net, +1 202 555 0143, Mon-Fri 9-18"
	for _, tt := range []struct {
		name, lang    string
		width, height int
	}{{"phone", "uk", 390, 844}, {"desktop", "en", 1280, 800}} {
		s, err := New(o, func(netip.Addr) Visitor { return Visitor{StatePaused, 1001} }, nil, quiet())
		require.NoError(t, err)
		file := filepath.Join(dir, "portal-"+tt.name+".png")
		chromium(t, "--screenshot="+file, fmt.Sprintf("--window-size=%d,%d", tt.width, tt.height), "--accept-lang="+tt.lang, "http://"+listenOn(t, s, false)+"/")
		f, err := os.Open(file)
		require.NoError(t, err)
		defer f.Close()
		img, err := png.Decode(f)
		require.NoError(t, err)
		require.Equal(t, tt.width, img.Bounds().Dx())
		back, other := img.At(0, 0), false
		for y := range tt.height {
			for _, x := range []int{1, 3, tt.width - 4, tt.width - 2} {
				near(t, back, img.At(x, y), x, y)
			}
			other = other || img.At(tt.width/2, y) != back
		}
		require.True(t, other, "there is a page")
	}
}

// near allows for the card's soft shadow.
func near(t *testing.T, a, b color.Color, x, y int) {
	t.Helper()
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	off := max(ar, br) - min(ar, br) + max(ag, bg) - min(ag, bg) + max(ab, bb) - min(ab, bb)
	require.Less(t, off, uint32(3*0x0c00), "at %d,%d there is no background", x, y)
}
