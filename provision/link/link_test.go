package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func tuple(src, dst string) netlink.IPTuple {
	return netlink.IPTuple{SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func TestMatch(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("::ffff:100.64.0.2")}
	tests := []struct {
		name           string
		forward, reply netlink.IPTuple
		want           bool
	}{
		{"opened by the subscriber", tuple("100.64.0.1", "192.0.2.1"), tuple("192.0.2.1", "100.64.0.1"), true},
		{"opened from the internet", tuple("192.0.2.1", "100.64.0.1"), tuple("100.64.0.1", "192.0.2.1"), true},
		{"source translated", tuple("100.64.0.1", "192.0.2.1"), tuple("192.0.2.1", "203.0.113.1"), true},
		{"destination translated", tuple("192.0.2.1", "203.0.113.1"), tuple("100.64.0.1", "192.0.2.1"), true},
		{"reply to the subscriber only", tuple("192.0.2.9", "203.0.113.1"), tuple("192.0.2.1", "100.64.0.2"), true},
		{"second address, mapped form", tuple("100.64.0.2", "192.0.2.1"), tuple("192.0.2.1", "100.64.0.2"), true},
		{"somebody else", tuple("100.64.0.11", "192.0.2.1"), tuple("192.0.2.1", "100.64.0.11"), false},
		{"no addresses", netlink.IPTuple{}, netlink.IPTuple{}, false},
		{"addresses of a strange length", netlink.IPTuple{SrcIP: net.IP{100, 64, 0}}, netlink.IPTuple{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			flow := &netlink.ConntrackFlow{Forward: tt.forward, Reverse: tt.reply}
			require.Equal(t, tt.want, newMatch(t.Context(), addrs).MatchConntrackFlow(flow))

			ended, cancel := context.WithCancel(t.Context())
			cancel()
			require.False(t, newMatch(ended, addrs).MatchConntrackFlow(flow), "picked after the end of the context")
		})
	}
}

func TestOutcome(t *testing.T) {
	tests := []struct {
		name    string
		err     error
		want    int
		wantErr string
	}{
		{"deleted", nil, 7, ""},
		{"no connection tracking", fmt.Errorf("dump: %w", unix.EINVAL), 0, ""},
		{"no access to it", unix.EOPNOTSUPP, 0, ""},
		{"not permitted", unix.EPERM, 7, "link: forget flows of 3 addresses: operation not permitted"},
		{"interrupted", netlink.ErrDumpInterrupted, 7, "link: forget flows of 3 addresses: " + netlink.ErrDumpInterrupted.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			f := &Flows{log: slog.New(slog.NewTextHandler(&log, nil))}
			for range 3 {
				n, err := f.outcomeLocked(7, 3, tt.err)
				require.Equal(t, tt.want, n)
				if tt.wantErr == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, tt.wantErr)
					require.True(t, errors.Is(err, tt.err))
				}
			}
			lines := bytes.Count(log.Bytes(), []byte("\n"))
			if tt.want == 0 {
				require.Equal(t, 1, lines, "said once")
			} else {
				require.Zero(t, lines)
			}
		})
	}
}

func TestForgetNobody(t *testing.T) {
	var f Flows // dials nothing
	n, err := f.Forget(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, n)
}
