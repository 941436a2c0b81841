package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func attr(typ uint16, parts ...[]byte) []byte {
	v := bytes.Join(parts, nil)
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	return append(b, make([]byte, (4-len(v)%4)%4)...)
}

func tuple(typ uint16, src, dst string) []byte {
	ip := func(typ uint16, s string) []byte { return attr(typ, netip.MustParseAddr(s).AsSlice()) }
	return attr(typ|unix.NLA_F_NESTED,
		attr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, ip(nl.CTA_IP_V4_SRC, src), ip(nl.CTA_IP_V4_DST, dst)),
		attr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, attr(nl.CTA_PROTO_NUM, []byte{6})))
}

func orig(src, dst string) []byte  { return tuple(nl.CTA_TUPLE_ORIG, src, dst) }
func reply(src, dst string) []byte { return tuple(nl.CTA_TUPLE_REPLY, src, dst) }

func message(attrs ...[]byte) []byte {
	return append([]byte{unix.AF_INET, nl.NFNETLINK_V0, 0, 0}, bytes.Join(attrs, nil)...)
}

// hosts returns addresses as prefixes.
func hosts(addrs ...netip.Addr) (out []netip.Prefix) {
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

func TestFind(t *testing.T) {
	m := newMatch(append(hosts(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("2001:db8::1")), netip.MustParsePrefix("100.64.8.0/21")))
	id, zone := attr(nl.CTA_ID, []byte{1, 2, 3, 4}), attr(nl.CTA_ZONE, []byte{0, 7})
	status := attr(nl.CTA_STATUS, []byte{0, 0, 0, 8})
	byUs := orig("100.64.0.1", "192.0.2.1")
	tests := []struct {
		name string
		msg  []byte
		want []byte // nil: not picked
	}{
		{"opened by the subscriber", message(byUs, reply("192.0.2.1", "100.64.0.1"), status, id), append(byUs[:len(byUs):len(byUs)], id...)},
		{"opened from the internet", message(orig("192.0.2.1", "100.64.0.1"), reply("100.64.0.1", "192.0.2.1")), orig("192.0.2.1", "100.64.0.1")},
		{"source translated", message(byUs, reply("192.0.2.1", "203.0.113.1")), byUs},
		{"destination translated", message(orig("192.0.2.1", "203.0.113.1"), reply("100.64.0.1", "192.0.2.1")), orig("192.0.2.1", "203.0.113.1")},
		{"answered by the subscriber, both translated", message(orig("192.0.2.9", "203.0.113.1"), reply("100.64.0.2", "203.0.113.2")), orig("192.0.2.9", "203.0.113.1")},
		{"another host, translated to the address", message(orig("192.0.2.9", "192.0.2.1"), reply("192.0.2.1", "100.64.0.2")), nil},
		{"the address, translated to another host", message(orig("192.0.2.1", "100.64.0.2"), reply("192.0.2.9", "192.0.2.1")), nil},
		{"zone and id are kept, in the order they come", message(status, byUs, zone, status, id), bytes.Join([][]byte{byUs, zone, id}, nil)},
		{"somebody else", message(orig("100.64.0.11", "192.0.2.1"), reply("192.0.2.1", "100.64.0.11"), id), nil},
		{"the address in another attribute", message(orig("192.0.2.9", "192.0.2.1"), attr(nl.CTA_MARK, []byte{100, 64, 0, 1})), nil},
		{"in a subnet", message(orig("100.64.15.255", "192.0.2.1"), reply("192.0.2.1", "100.64.15.255")), orig("100.64.15.255", "192.0.2.1")},
		{"beside a subnet", message(orig("100.64.16.0", "192.0.2.1"), reply("192.0.2.1", "100.64.16.0")), nil},
		{"nothing", nil, nil},
		{"header only", message(), nil},
		{"cut in the tuple", message(byUs)[:20], nil},
		{"attribute longer than the message", message([]byte{200, 200, 1, 0, 1, 2, 3, 4}), nil},
		{"attribute shorter than its header", message([]byte{1, 0, 1, 0}, byUs), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := m.find(tt.msg)
			require.Equal(t, tt.want != nil, ok)
			require.Equal(t, entry(tt.want), got)
		})
	}
}

// Whatever bytes arrive, nothing panics, and what is sent back are whole
// attributes of the message.
func FuzzFind(f *testing.F) {
	f.Add(message(orig("100.64.0.1", "192.0.2.1"), reply("192.0.2.1", "100.64.0.1"), attr(nl.CTA_ID, []byte{1, 2, 3, 4})))
	f.Add(message(orig("192.0.2.9", "192.0.2.1"), attr(nl.CTA_ZONE, []byte{0, 7})))
	f.Add(message([]byte{200, 0, 1, 0}))
	m := newMatch(append(hosts(netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.9")), netip.MustParsePrefix("100.64.8.0/21")))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := m.find(b)
		if len(e) > len(b) || !ok && e != nil {
			t.Errorf("%d bytes of %d, picked %v", len(e), len(b), ok)
		}
	})
}

func TestOutcome(t *testing.T) {
	tests := []struct {
		name    string
		err     error
		want    int
		wantErr string
	}{
		{"deleted", nil, 7, ""},
		{"no connection tracking", fmt.Errorf("read connections: %w", errNoTracking), 0, ""},
		{"a delete refused as invalid", unix.EINVAL, 7, "link: forget flows of 3 addresses: invalid argument"},
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

func TestAbsent(t *testing.T) {
	require.True(t, absent(unix.EINVAL), "nfnetlink without the subsystem")
	require.True(t, absent(fmt.Errorf("dial: %w", unix.EPROTONOSUPPORT)))
	require.False(t, absent(unix.EPERM))
	require.False(t, absent(unix.ENOBUFS))
}

func TestForgetNobody(t *testing.T) {
	var f Flows // dials nothing
	n, err := f.Forget(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, n)
}
