package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// While no agent runs the kernel leads nobody to the portal's port: any user of the
// router may listen there.
func TestKernelPortalGoesWithTheAgent(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "curl", "dnsmasq")
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "portal: {listen: \"10.0.0.1:8080\"}\n"})
	w.startSites(t)
	require.NoError(t, w.StartAgent(t.Context()))
	p, err := w.DHCPClient(w.Homes[0])
	require.NoError(t, err)
	eventually(t, 15*time.Second, "udhcpc is bound", func() (bool, error) {
		return strings.Contains(p.Log(), "bound ip="+w.Homes[0].IP.String()+" "), nil
	})
	_, err = w.Client.SetState(t.Context(), provision.SubscriberID(w.Homes[0].ID), provision.StatePause)
	require.NoError(t, err)
	ask := func() answer { return curl(t, w.Homes[0].Host, "http://any.example.org/", siteAny) }
	require.Equal(t, "511", ask().code)

	require.NoError(t, w.Agent.Signal(syscall.SIGTERM))
	<-w.Agent.Done()
	require.ErrorContains(t, ask().err, "exit status 7", "refused at once after an ordinary stop")
	require.NoError(t, w.StartAgent(t.Context()))
	eventually(t, 5*time.Second, "the page is back", func() (bool, error) { return ask().code == "511", nil })

	w.Agent.Kill()
	killed := time.Now()
	ln, err := w.Router.Listen("10.0.0.1:8080")
	require.NoError(t, err)
	w.Serve(ln, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(rw, "your password, please") }))
	// The page says at most 12 seconds. What was asked before they were over may be answered late on a busy machine.
	var led time.Duration
	eventually(t, 30*time.Second, "the kernel leads nobody there any more", func() (bool, error) {
		asked := time.Since(killed)
		a := ask()
		if a.err == nil {
			led = asked
			require.Equal(t, "your password, please", a.body)
			require.LessOrEqual(t, asked, 12*time.Second, "led to a stranger")
		}
		return a.err != nil && strings.Contains(a.err.Error(), "exit status 7"), nil
	})
	t.Logf("led to a stranger for %s after a kill", led.Round(100*time.Millisecond))
	require.Positive(t, led, "somebody was: else nothing was tried")
	require.NoError(t, w.StartAgent(t.Context()))
	require.ErrorContains(t, ask().err, "exit status 7", "the port is another's: nobody is led there")
}

// A host firewall that closes the portal's port takes the page away in silence: whoever
// asks the agent is told.
func TestKernelHiddenPortalIsTold(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "curl", "dnsmasq")
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "portal: {listen: \"10.0.0.1:8080\"}\n"})
	w.startSites(t)
	require.NoError(t, w.StartAgent(t.Context()))
	require.NoError(t, w.Lease(t.Context(), w.Homes[0]))
	w.setState(t, w.Homes[0], provision.StatePause)
	ask := func() answer { return curl(t, w.Homes[0].Host, "http://any.example.org/", siteAny, "--max-time", "1") }
	require.Equal(t, "511", ask().code)
	out, code := w.usherOn(t, "acl", "verify")
	require.Zero(t, code, out)
	require.NotContains(t, out, "portal")

	file := filepath.Join(w.Dir, "fw.nft")
	require.NoError(t, os.WriteFile(file, []byte(`table inet fw {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iif lo accept
		udp dport 67 accept
		tcp dport 22 accept
	}
}
`), 0o600))
	w.nft(t, "-f", file)
	require.Error(t, ask().err)
	const want = "the portal is hidden: table inet fw, chain input: by its policy it drops what comes to the portal's port 8080; let tcp 8080 in from subscribers"
	eventually(t, 10*time.Second, "status tells", func() (bool, error) {
		out, _ := w.usherOn(t, "status", "--output", "table")
		return strings.Contains(out, want), nil
	})
	out, _ = w.usherOn(t, "acl", "verify")
	require.Contains(t, out, want)
	out, _ = w.usherOn(t, "explain", w.Homes[0].IP.String())
	require.Contains(t, out, "the portal is hidden from the paused: table inet fw, chain input")

	w.nft(t, "add", "rule", "inet", "fw", "input", "tcp", "dport", "8080", "accept")
	require.Equal(t, "511", ask().code)
	out, _ = w.usherOn(t, "acl", "verify")
	require.NotContains(t, out, "hidden")
}
