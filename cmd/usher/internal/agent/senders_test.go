package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// lines is a log in memory.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns the lines with all of the words, and forgets the whole log.
func (l *lines) take(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	l.buf.Reset()
	return found
}

// edit replaces in the configuration, has it reloaded, and waits until service was told that this is over.
func (d *daemon) edit(t *testing.T, reload chan<- struct{}, service *told, old, fresh string) {
	t.Helper()
	before := len(service.all())
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	require.NoError(t, os.WriteFile(d.path, []byte(strings.Replace(string(text), old, fresh, 1)), 0o600))
	reload <- struct{}{}
	eventually(t, "it is reloaded", func() bool {
		words := service.all()[before:]
		i := slices.Index(words, "reloading")
		return i >= 0 && slices.Contains(words[i:], "ready")
	})
	require.Empty(t, d.status.Load().LastError)
}

// What a file from before believes is told in the log at start and reload and in the status; the lines that
// are told there, pasted, end it, and the relay is believed as before.
func TestLinesOfTheStatusCanBePasted(t *testing.T) {
	log, service := &lines{}, &told{}
	d := newDaemon(t, Options{}, "")
	require.NoError(t, d.Stop())
	text, err := os.ReadFile(d.path)
	require.NoError(t, err)
	old := regexp.MustCompile(`(?m)^  (check_relay_source|option82_relays|trusted_interfaces): .*\n`).ReplaceAllString(string(text), "")
	old = regexp.MustCompile(`(?m)^  relays: .*$`).ReplaceAllString(old, "  relays: [127.0.0.1]")
	require.NoError(t, os.WriteFile(d.path, []byte(old), 0o600))
	cfg, err := config.Load(d.path)
	require.NoError(t, err)
	d.Agent, err = New(t.Context(), cfg, Options{Path: d.path, Service: service, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Stop() })
	assert.Len(t, log.take("level=WARN", "dhcp.trusted_interfaces", "| trusted_interfaces: none"), 1, "at the start")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reload := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, reload) }()
	status := func() *console.Status {
		st, err := d.client.Status(ctx)
		require.NoError(t, err)
		return st
	}
	eventually(t, "it is ready", func() bool {
		st, err := d.client.Status(ctx)
		return err == nil && st.Ready
	})
	d.edit(t, reload, service, "relays: [127.0.0.1]", "relays: []")
	assert.Len(t, log.take("level=WARN", "dhcp.relays"), 1, "once at a reload")

	relay, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	require.NoError(t, err)
	defer relay.Close()
	send := func(giaddr string, n uint64) {
		t.Helper()
		q := wire.Query{Type: wire.Discover, MAC: [6]byte{0, 0, 0x5e, 0, 0x53, 0x17}, GIAddr: netip.MustParseAddr(giaddr)}
		_, err := relay.WriteToUDPAddrPort(q.Append(nil), status().DHCP.Listen)
		require.NoError(t, err)
		eventually(t, "the packet is seen", func() bool { return status().DHCP.Packets == n })
	}
	send("127.0.0.3", 1)
	st := status()
	assert.True(t, st.Ready, "a warning is no failure")
	require.Len(t, st.DHCP.Senders.Warnings, 2)
	require.Equal(t, []string{"relays: [127.0.0.2, 127.0.0.3]", "check_relay_source: true"}, st.DHCP.Senders.Warnings[0].Paste)

	// A list that has the relay's address alone: the source is believed for an old file, and named.
	d.edit(t, reload, service, "relays: []", "relays: [127.0.0.3]")
	log.take()
	send("127.0.0.3", 2)
	assert.Len(t, log.take("level=WARN", "reason=unlisted_source", "giaddr=127.0.0.3", "source=127.0.0.2:", "interface=lo", `paste="relays: [127.0.0.3, 127.0.0.2]"`), 1)
	all, err := d.client.Senders(ctx)
	require.NoError(t, err)
	require.Len(t, all.Relays, 1)
	assert.Equal(t, senders.UnlistedSource, all.Relays[0].State)
	var paste []string
	for _, w := range all.Warnings {
		paste = append(paste, w.Paste...)
	}
	d.edit(t, reload, service, "relays: [127.0.0.3]", strings.Join(paste, "\n  "))
	st = status()
	assert.Empty(t, st.DHCP.Senders.Warnings)
	assert.Empty(t, log.take("level=WARN"))
	send("127.0.0.3", 3)
	st = status()
	require.Len(t, st.DHCP.Senders.Relays, 1)
	assert.Equal(t, senders.Relay, st.DHCP.Senders.Relays[0].State)
	assert.Equal(t, uint64(3), st.DHCP.Senders.Relays[0].Packets)
	assert.Equal(t, "relay", st.DHCP.Events[0].VouchedBy)
	assert.Empty(t, log.take("level=WARN"))
	cancel()
	require.NoError(t, <-ended)
}
