package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
)

// agentWithDoors has the listeners of a configuration, and may open so many files.
func agentWithDoors(cfg *config.Config, descriptors uint64) *Agent {
	quiet := slog.New(slog.DiscardHandler)
	a := &Agent{log: quiet, metrics: console.NewMetrics(prometheus.NewRegistry())}
	a.cfg.Store(cfg)
	if cfg.Hooks.Listen.IsValid() {
		a.hooks = console.NewHooks(cfg.Hooks, func(provision.SubscriberID) {}, nil, quiet)
	}
	a.openDoors(descriptors)
	return a
}

// Listeners that are off have no door, and leave their share to the others.
func TestDoorsOfListenersThatAreOn(t *testing.T) {
	limits := func(cfg *config.Config) map[string]int {
		out := map[string]int{}
		for _, st := range agentWithDoors(cfg, 1024).lookAtDoors() {
			out[st.Name] = st.Total
		}
		return out
	}
	cfg := &config.Config{}
	assert.Equal(t, map[string]int{"control": 64}, limits(cfg))
	cfg.Console.Listen = netip.MustParseAddrPort("127.0.0.1:9467")
	assert.Equal(t, map[string]int{"control": 64, "console": 128}, limits(cfg))
	cfg.Hooks.Listen = netip.MustParseAddrPort("127.0.0.1:9468")
	assert.Equal(t, map[string]int{"control": 64, "console": 128, "hooks": 256}, limits(cfg))
}

// The console lets in whom the configuration of now allows.
func TestConsoleAllow(t *testing.T) {
	allow := func(p string) *config.Config {
		cfg := &config.Config{}
		cfg.Console.Listen = netip.MustParseAddrPort("127.0.0.1:0")
		cfg.Console.Allow = []netip.Prefix{netip.MustParsePrefix(p)}
		return cfg
	}
	a := agentWithDoors(allow("192.0.2.0/24"), 1024)
	ctx, cancel := context.WithCancel(t.Context())
	bound, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- console.ServeHTTP(ctx, a.cfg.Load().Console.Listen, http.NotFoundHandler(), a.doors.console, a.log, func(at net.Addr) { bound <- at })
	}()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + (<-bound).String()
	resp, err := client.Get(url)
	if err == nil {
		_ = resp.Body.Close()
	}
	require.Error(t, err)
	a.cfg.Store(allow("127.0.0.0/8"))
	resp, err = client.Get(url)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
}
