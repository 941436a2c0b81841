package acl

import (
	"encoding/binary"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

var update = flag.Bool("update", false, "write the batches of this schema in testdata")

// Written are batches that this version sends, with their policies: the whole table
// with WrittenACL in it and the switch on for an hour. Together they have every set
// and every rule.
var Written = map[string]ruleset.Policy{
	"schema3-all.netlink":    {Portal: netip.MustParseAddrPort("192.0.2.254:8080"), SourceGuard: true, Alone: true, IPv6: true},
	"schema3-portal.netlink": {Portal: netip.MustParseAddrPort("0.0.0.0:8080")},
}

// WrittenBefore are those of the schema before, with the elements of WrittenACL that
// it had sets for.
var WrittenBefore = map[string]ruleset.Policy{
	"schema2-all.netlink":    Written["schema3-all.netlink"],
	"schema2-portal.netlink": Written["schema3-portal.netlink"],
}

// newSets are those that the schema before does not have.
var newSets = []access.Set{access.SetDHCPServers, access.SetAloneStopped, access.SetAlonePaused,
	access.SetIPv6Direct, access.SetStoppedMAC, access.SetPausedMAC, access.SetStoppedInterface, access.SetPausedInterface}

// WrittenACLBefore returns the elements in the tables of WrittenBefore.
func WrittenACLBefore() access.ACL {
	a := WrittenACL()
	for _, s := range newSets {
		a[s] = ""
	}
	return a
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
		access.SetExempt:       access.Prefixes(prefix("203.0.113.0/25"), prefix("255.255.255.254/31")),
		access.SetDHCPServers:  access.Prefixes(prefix("192.0.2.67/32")),
		access.SetAloneStopped: access.Interfaces("eth0.7"), access.SetAlonePaused: access.Interfaces("eth0.8"),
		access.SetIPv6Direct: access.Interfaces("br0"),
		access.SetStoppedMAC: "\x02\x00\x00\x00\x00\x01", access.SetPausedMAC: "\x02\x00\x00\x00\x00\x03",
		access.SetStoppedInterface: access.Interfaces("eth0.7"), access.SetPausedInterface: access.Interfaces("eth0.8"),
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

// Replacing returns the recorded batch with the removal of the table before it, as one
// batch: from a table that is there to that one.
func Replacing(t testing.TB, recorded []netlink.Message) []netlink.Message {
	t.Helper()
	var removal []netlink.Message
	c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		removal = append(removal, req...)
		return nil, io.EOF
	}))
	require.NoError(t, err)
	c.DelTable(ruleset.Table())
	require.NoError(t, c.Flush())
	require.Len(t, removal, 3) // with the begin and the end of its batch
	return slices.Concat(recorded[:1], removal[1:2], recorded[1:])
}

// writeWritten writes a file of Written.
func writeWritten(t *testing.T, file string, messages []netlink.Message) {
	t.Helper()
	var b []byte
	for _, m := range messages {
		b = binary.LittleEndian.AppendUint32(b, uint32(16+len(m.Data)))
		b = binary.LittleEndian.AppendUint16(b, uint16(m.Header.Type))
		b = binary.LittleEndian.AppendUint16(b, uint16(m.Header.Flags))
		b = binary.LittleEndian.AppendUint32(b, m.Header.Sequence)
		b = append(binary.LittleEndian.AppendUint32(b, 0), m.Data...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	require.NoError(t, os.WriteFile(filepath.Join("testdata", file), b, 0o644))
}

// What is sent for a table is what the version before sent, to the byte, so that
// the kernel has it as before.
func TestTheTableIsSentAsBefore(t *testing.T) {
	for file, policy := range Written {
		var got []netlink.Message
		c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
			got = append(got, req...)
			return nil, io.EOF
		}))
		require.NoError(t, err)
		require.NoError(t, queueSchema(c, policy, false, WrittenACL(), switches{open: time.Hour}))
		require.NoError(t, c.Flush())
		if *update {
			writeWritten(t, file, got)
		}
		want := ReadWritten(t, file)
		require.Len(t, got, len(want), file)
		for i, m := range got {
			require.Equal(t, want[i].Header.Type, m.Header.Type, "%s: message %d", file, i)
			require.Equal(t, want[i].Header.Flags, m.Header.Flags, "%s: message %d", file, i)
			require.Equal(t, want[i].Data, m.Data, "%s: message %d", file, i)
		}
	}
}
