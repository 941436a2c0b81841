package acl

import (
	"bytes"
	"encoding/binary"
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

// What is sent for a table is what the version before sent, to the byte, but for
// the number of the schema and the rules that are others since.
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
		changed := 0
		for i, m := range ReadWritten(t, file) {
			data := bytes.ReplaceAll(unnumbered(m), []byte("usher schema 2"), []byte("usher schema 3"))
			at := slices.IndexFunc(got, func(x netlink.Message) bool {
				return x.Header.Type == m.Header.Type && bytes.Equal(unnumbered(x), data)
			})
			if at < 0 && redirects(data) {
				changed++ // looks whether the portal is up
				continue
			}
			require.GreaterOrEqual(t, at, 0, "%s: message %d is not sent any more", file, i)
			require.Equal(t, m.Header.Flags, got[at].Header.Flags, "%s: message %d", file, i)
			got = got[at+1:] // in the order of before
		}
		require.Equal(t, 2, changed, "%s: the redirections of the paused and of guests", file)
	}
}

// redirects tells whether a message makes a rule that leads to the portal.
func redirects(data []byte) bool {
	return bytes.Contains(data, []byte("lookup\x00")) && (bytes.Contains(data, []byte("nat\x00")) || bytes.Contains(data, []byte("redir\x00")))
}

// unnumbered returns the message without the number that a set or rule has in its batch,
// which follows from how many are made before it.
func unnumbered(m netlink.Message) []byte {
	const setID, elementsSetID, ruleID = 10, 4, 9 // NFTA_SET_ID, NFTA_SET_ELEM_LIST_SET_ID, NFTA_RULE_ID
	number := map[uint16]uint16{unix.NFT_MSG_NEWSET: setID, unix.NFT_MSG_NEWSETELEM: elementsSetID, unix.NFT_MSG_NEWRULE: ruleID}[uint16(m.Header.Type)&0xff]
	data := bytes.Clone(m.Data)
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || number == 0 {
		return data
	}
	_ = eachAttr(payload(data), func(typ uint16, v []byte) error {
		if typ == number {
			clear(v)
		}
		return nil
	})
	return data
}
