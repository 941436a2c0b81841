package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
)

// logged keeps the log of an agent, as text without times.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// warnings takes the warnings about the configuration that came since the last call, by key.
func (l *logged) warnings() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for line := range strings.Lines(l.buf.String()) {
		if _, rest, ok := strings.Cut(line, "level=WARN msg=configuration "); ok {
			_, rest, _ = strings.Cut(rest, " key=")
			key, text, _ := strings.Cut(rest, " ")
			out[key] = text
		}
	}
	l.buf.Reset()
	return out
}

// A file from before one had to say where option 82 is believed is taken by a reload and by a start,
// serves as before, and is warned of with what to paste.
func TestOldFileIsTakenWithWarnings(t *testing.T) {
	log := &logged{}
	d := newDaemon(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))}, "")
	assert.Empty(t, log.warnings(), "all is said")
	good, err := os.ReadFile(d.path)
	require.NoError(t, err)
	old := strings.NewReplacer("  trusted_interfaces: none\n", "", "  check_relay_source: true\n", "", "  option82_relays: all\n", "").Replace(string(good))
	require.NotEqual(t, string(good), old)
	told := func(got map[string]string) {
		t.Helper()
		require.Len(t, got, 3, "%v", got)
		assert.Contains(t, got["dhcp.option82_relays"], "believed as the relay's word")
		assert.Contains(t, got["dhcp.option82_relays"], `paste="option82_relays: [127.0.0.1] | option82_relays: all | option82_relays: none"`)
		assert.Contains(t, got["dhcp.trusted_interfaces"], "believed on every interface")
		assert.Contains(t, got["dhcp.trusted_interfaces"], `paste="trusted_interfaces: [eth1] | trusted_interfaces: none"`)
		assert.Contains(t, got["dhcp.check_relay_source"], `paste="check_relay_source: true"`)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reload := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, reload) }()
	ready := func() bool {
		st, err := d.client.Status(t.Context())
		return err == nil && st.Ready
	}
	eventually(t, "it is ready", ready)
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.Equal(t, customerIP, d.lease(t, mac))
	require.NoError(t, os.WriteFile(d.path, []byte(old), 0o600))
	reload <- struct{}{}
	reload <- struct{}{} // taken when the first is over
	told(log.warnings())
	require.Empty(t, d.status.Load().LastError)
	require.Equal(t, customerIP, d.lease(t, mac))
	cancel()
	require.NoError(t, <-ended)
	log.warnings()

	cfg, err := config.Load(d.path)
	require.NoError(t, err)
	again, err := New(t.Context(), cfg, Options{Path: d.path, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	told(log.warnings())
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- again.Run(ctx, nil) }()
	eventually(t, "it is ready again", ready)
	require.Equal(t, customerIP, d.lease(t, mac))
	cancel()
	require.NoError(t, <-ended)
}

// A name that no interface has is no mistake: it is told at the start and at a reload, and in the
// status as long as it is so.
func TestMissingInterfacesAreTold(t *testing.T) {
	log := &logged{}
	d := newDaemon(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))}, "routes: {enabled: true, dry_run: true, interfaces: [no-such0, lo]}\n")
	for range 2 {
		got := log.warnings()
		require.Len(t, got, 1)
		assert.Contains(t, got["routes.interfaces[0]"], `warning="no interface of this host fits \"no-such0\"`)
		require.Len(t, d.configStatus().MissingInterfaces, 1)
		assert.Contains(t, d.configStatus().MissingInterfaces[0], `: routes.interfaces[0]: no interface of this host fits "no-such0"`)
		require.NoError(t, d.reload())
	}
	log.warnings()
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.path, bytes.Replace(text, []byte("no-such0, "), nil, 1), 0o600))
	require.NoError(t, d.reload())
	assert.Empty(t, log.warnings())
	assert.Empty(t, d.configStatus().MissingInterfaces)
}
