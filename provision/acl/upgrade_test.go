package acl

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// Written are batches that a version of usher sent which had its own code for
// each set and spelled each rule twice, with their policies: the whole table of
// schema 2 with WrittenACL in it and the switch on for an hour. Together they
// have every set and every rule.
var Written = map[string]ruleset.Policy{
	"schema2-all.netlink":    {Portal: netip.MustParseAddrPort("192.0.2.254:8080"), SourceGuard: true},
	"schema2-portal.netlink": {Portal: netip.MustParseAddrPort("0.0.0.0:8080")},
}

// WrittenACL returns the elements in those tables.
func WrittenACL() access.ACL {
	ip, prefix := netip.MustParseAddr, netip.MustParsePrefix
	return access.ACL{
		access.SetStopped:       access.Addrs(ip("100.64.0.1"), ip("100.64.0.2"), ip("198.51.100.9")),
		access.SetPaused:        access.Addrs(ip("100.64.0.3")),
		access.SetGuests:        access.Addrs(ip("100.64.1.200"), ip("255.255.255.255")),
		access.SetGarden:        access.Prefixes(prefix("198.51.100.0/24"), prefix("203.0.113.9/32")),
		access.SetGuestGarden:   access.Prefixes(prefix("198.51.100.1/32")),
		access.SetResolvers:     access.Prefixes(prefix("0.0.0.0/0")),
		access.SetGuardedDirect: access.Interfaces("br0", "fifteenletters0"),
		access.SetGuardedVLAN:   access.Interfaces("eth0.7", "eth0.8"),
		access.SetBoundDirect: access.DirectBindings(access.DirectBinding{IP: ip("100.64.0.1"), MAC: provision.MAC{2, 0, 0, 0, 0, 1}},
			access.DirectBinding{IP: ip("100.64.0.1"), MAC: provision.MAC{2, 0, 0, 0, 0, 2}}),
		access.SetBoundVLAN: access.VLANBindings(access.VLANBinding{Interface: "eth0.7", IP: ip("100.64.0.2")},
			access.VLANBinding{Interface: "eth0.8", IP: ip("100.64.0.3")}),
		access.SetExempt: access.Prefixes(prefix("203.0.113.0/25"), prefix("255.255.255.254/31")),
	}
}

// ReadWritten returns the messages of a file of Written.
func ReadWritten(t testing.TB, file string) (out []netlink.Message) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	for len(b) > 0 {
		n := int(binary.LittleEndian.Uint32(b)) // the machine that wrote it
		out = append(out, netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(binary.LittleEndian.Uint16(b[4:])), Flags: netlink.HeaderFlags(binary.LittleEndian.Uint16(b[6:]))},
			Data:   b[16:n],
		})
		b = b[(n+3)&^3:]
	}
	return out
}

// What is sent for a table is what the version before sent, to the byte, and besides
// it the sets for IPv6: those who use none of them have the same rules as before.
func TestTheTableIsSentAsBefore(t *testing.T) {
	for file, policy := range Written {
		var got []netlink.Message
		c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
			got = append(got, req...)
			return nil, io.EOF
		}))
		require.NoError(t, err)
		require.NoError(t, queueSchema(c, policy, false, WrittenACL(), time.Hour))
		require.NoError(t, c.Flush())
		var more []string
		want := ReadWritten(t, file)
		for _, m := range got {
			if len(want) > 0 && m.Header.Type == want[0].Header.Type && m.Header.Flags == want[0].Header.Flags && numberless(t, m) == numberless(t, want[0]) {
				want = want[1:]
				continue
			}
			name := ""
			require.NoError(t, eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
				if typ == unix.NFTA_SET_NAME {
					name = strings.TrimRight(string(v), "\x00")
				}
				return nil
			}))
			more = append(more, name)
		}
		require.Empty(t, want, "%s: the first of these is not sent as before", file)
		require.Equal(t, []string{"ipv6_direct", "stopped_mac", "paused_mac", "stopped_ifname", "paused_ifname"}, more, file)
	}
}

// numberless is a message without what tells one schema from another: its number, how
// sets and rules are counted within the batch, and that the switch has two families now.
func numberless(t *testing.T, m netlink.Message) string {
	const setID, ruleID = 10, 9 // NFTA_SET_ID, NFTA_RULE_ID
	var out strings.Builder
	open := false
	require.NoError(t, eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
		open = open || typ == unix.NFTA_SET_ELEM_LIST_SET && string(v) == setOpenName
		switch msg := uint16(m.Header.Type) & 0xff; {
		case msg == unix.NFT_MSG_NEWSET && typ == setID, msg == unix.NFT_MSG_NEWRULE && typ == ruleID:
			return nil
		case msg == unix.NFT_MSG_NEWSETELEM && typ == unix.NFTA_SET_ELEM_LIST_ELEMENTS && open:
			v = v[:binary.NativeEndian.Uint16(v)] // the first one
		}
		fmt.Fprintf(&out, "%d %q\n", typ, strings.Replace(string(v), "usher schema 3", "usher schema 2", 1))
		return nil
	}))
	return out.String()
}

// setOpenName is how messages name the set of the switch.
const setOpenName = ruleset.SetOpen + "\x00"
