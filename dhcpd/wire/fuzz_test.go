package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
)

// instances counts how often each option stands in the options field of raw.
func instances(raw []byte) (n [256]int) {
	for at := optionsAt; at < len(raw) && raw[at] != OptEnd; {
		if raw[at] == OptPad {
			at++
			continue
		}
		if at+1 >= len(raw) {
			break
		}
		n[raw[at]]++
		at += 2 + int(raw[at+1])
	}
	return n
}

// FuzzReaders gives the same bytes to our reader and to a well-known one. What
// both take they must read alike; what one of them refuses must be a difference
// that is known and meant.
func FuzzReaders(f *testing.F) {
	f.Add(discover(f))
	f.Add(discover(f, dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 6, 0, 4, 0, 105, 0, 5})))
	f.Add(bare(53, 1, 1, 61, 2, 0, 'a', 61, 1, 'b', 55, 2, 1, 3, 55, 1, 6, 255))
	f.Add(bare(53, 1, 1, 60, 1, 'x', 124, 6, 0, 0, 0, 9, 1, 'y', 77, 1, 'z'))
	f.Add(bare(53, 1, 1, 52, 1, 3, 255))
	f.Add(bare(53, 1, 1, 50, 2, 1, 1, 255))
	f.Add(bare(53, 2, 1, 1, 50, 0, 52, 0, 54, 5, 192, 0, 2, 1, 0, 55, 0, 61, 0, 255))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p Packet
		ours := p.Parse(raw)
		lib, theirs := dhcpv4.FromBytes(raw)
		switch {
		case ours != nil && theirs != nil:
			return
		case ours != nil:
			// We look into overloaded fields.
			if errors.Is(ours, ErrOptionTruncated) {
				require.NotEmpty(t, lib.Options.Get(dhcpv4.OptionOptionOverload), "only in sname or file")
				return
			}
			require.Contains(t, []error{ErrHardwareLength, ErrNoType, ErrLong}, ours, "we refuse what they read")
			return
		case theirs != nil:
			require.Equal(t, len(raw), p.main, "they refuse what has no End: %v", theirs)
			return
		}
		if p.overload != 0 {
			return // they do not look into sname and file
		}
		n := instances(raw)
		for _, number := range []uint8{OptRequestedIP, OptLeaseTime, OptOverload, OptMessageType, OptServerID, OptMaxMessageSize} {
			if n[number] > 1 {
				return // they join these; of numbers the first counts for us
			}
		}
		if n[OptRelayAgentInfo] > 1 {
			return // they join forged with real sub-options
		}
		same(t, &p, lib)
		for _, x := range p.texts() {
			require.Equal(t, string(lib.Options.Get(dhcpv4.GenericOptionCode(x.code))), string(p.bytes(*x.at)), "option %d", x.code)
		}
		require.Equal(t, lib.Options.Has(dhcpv4.GenericOptionCode(OptRapidCommit)), p.RapidCommit())
		for code := 1; code < 255; code++ {
			require.Equal(t, string(lib.Options.Get(dhcpv4.GenericOptionCode(code))), string(p.AppendOption(nil, byte(code))), "option %d", code)
		}

		// What they write we read alike.
		if lib.HWType == 1 && len(lib.ClientHWAddr) == 6 {
			var again Packet
			require.NoError(t, again.Parse(lib.ToBytes()))
			same(t, &again, lib)
		}
	})
}

// takeOptions makes options of fuzzed bytes: code, length in steps of 3, then values of that code.
func takeOptions(seed []byte) (list []Option) {
	for len(seed) >= 2 && len(list) < 40 {
		if code := seed[0]; !slices.ContainsFunc(list, func(o Option) bool { return o.Code == code }) && code != OptVendorIdentifying {
			n := 3 * int(seed[1])
			if code == OptSubnetMask {
				n = 4
			}
			list = append(list, Option{code, bytes.Repeat([]byte{code}, n)})
		}
		seed = seed[2:]
	}
	return list
}

// FuzzReply: whatever is configured and asked for, the answer keeps to the
// client's limit, is read by ourselves and by others, says nothing that is not
// configured, and has the relay's option 82 whole and last.
func FuzzReply(f *testing.F) {
	f.Add([]byte{1, 0, 3, 2, 6, 4, 15, 9, 43, 80, 121, 100, 66, 20}, []byte{1, 3, 6, 43, 121}, []byte{0, 1, 2}, []byte{1, 2, 3, 4}, uint16(576), byte(0))
	f.Add([]byte{6, 60, 43, 40, 67, 20, 200, 15, 201, 10, 202, 3}, []byte{202, 67, 6, 43, 200, 201}, bytes.Repeat([]byte{7}, 300), bytes.Repeat([]byte{1}, 100), uint16(0), byte(0))
	f.Add([]byte{6, 60, 43, 40, 67, 20, 200, 15}, []byte(nil), []byte(nil), bytes.Repeat([]byte{1}, 255), uint16(1500), byte(5))
	f.Fuzz(func(t *testing.T, seed, list, id, relay []byte, size uint16, flags byte) {
		var set *OptionSet
		configured := map[byte][]byte{}
		var options []Option
		for _, o := range takeOptions(seed) {
			if _, err := NewOptionSet([]Option{o}); err == nil {
				options = append(options, o)
				configured[o.Code] = o.Value
			}
		}
		set, err := NewOptionSet(options, seed...)
		require.NoError(t, err)
		boot := Boot{}
		if flags&1 != 0 {
			boot.File = "file"
		}
		if flags&2 != 0 {
			boot.ServerName = "name"
		}
		set, err = set.WithBoot(boot)
		require.NoError(t, err)
		q := Query{Type: Request, MAC: [6]byte(clientMAC)}
		if size != 0 {
			q.Options = append(q.Options, Option{OptMaxMessageSize, binary.BigEndian.AppendUint16(nil, size)})
		}
		if len(id) > 0 {
			q.Options = append(q.Options, Option{OptClientID, id[:min(len(id), 700)]})
		}
		list = list[:min(len(list), 600)]
		if flags&4 == 0 {
			q.Options = append(q.Options, Option{OptParameterList, list})
		}
		if len(relay) > 0 {
			q.Option82 = relay[:min(len(relay), 255)]
		}
		asked := q.Append(nil)
		var p Packet
		require.NoError(t, p.Parse(asked))
		r := ack(set)
		r.RapidCommit = flags&8 != 0
		raw := r.Append(nil, &p)
		require.LessOrEqual(t, len(raw), p.MaxPayload())
		require.GreaterOrEqual(t, len(raw), MinReplyLen)

		var back Packet
		require.NoError(t, back.Parse(raw))
		require.Equal(t, q.Option82, back.RelayInfo())
		if q.Option82 != nil {
			end := bytes.TrimRight(raw[:back.main+1], "\x00")
			require.True(t, bytes.HasSuffix(end, append(append([]byte{OptRelayAgentInfo, byte(len(q.Option82))}, q.Option82...), OptEnd)), "last, in the options field")
		}
		checkFields(t, &back, boot)
		require.Equal(t, uint32(3600), back.LeaseTime())
		require.Equal(t, r.ServerID, back.ServerID())
		if got := back.ClientID(); got != nil {
			require.True(t, bytes.Equal(p.ClientID(), got))
		}
		for code, want := range configured {
			got, there := back.Option(code)
			if there && code != OptSubnetMask && flags&4 == 0 && len(list) > 0 {
				require.True(t, bytes.IndexByte(list, code) >= 0 || bytes.IndexByte(seed, code) >= 0)
			}
			if there {
				require.Equal(t, string(want), string(back.AppendOption(nil, code)), "option %d, of %d bytes first", code, len(got))
			}
		}
		own := []byte{OptLeaseTime, OptOverload, OptMessageType, OptServerID, OptRenewalTime, OptRebindingTime, OptClientID, OptRapidCommit, OptRelayAgentInfo}
		for code := 1; code < 255; code++ {
			if _, there := back.Option(byte(code)); there && bytes.IndexByte(own, byte(code)) < 0 {
				require.Contains(t, configured, byte(code))
			}
		}
		lib, err := dhcpv4.FromBytes(raw)
		require.NoError(t, err)
		require.Equal(t, string(q.Option82), string(lib.Options.Get(dhcpv4.OptionRelayAgentInformation)))
		if back.overload == 0 {
			for code := 1; code < 255; code++ {
				require.Equal(t, string(lib.Options.Get(dhcpv4.GenericOptionCode(code))), string(back.AppendOption(nil, byte(code))))
			}
		}
	})
}

// checkFields: sname and file hold either text or options with an End and zeros after it.
func checkFields(t *testing.T, p *Packet, boot Boot) {
	t.Helper()
	for _, f := range []struct {
		bit  byte
		b    []byte
		text string
	}{{1, p.raw[fileAt : fileAt+fileLen], boot.File}, {2, p.raw[snameAt : snameAt+snameLen], boot.ServerName}} {
		if p.overload&f.bit == 0 {
			require.Equal(t, f.text, string(bytes.TrimRight(f.b, "\x00")))
			continue
		}
		require.Empty(t, f.text, "a field that says what it is made for is not overloaded")
		at := 0
		for f.b[at] != OptEnd {
			require.NotEqual(t, OptPad, int(f.b[at]))
			at += 2 + int(f.b[at+1])
			require.Less(t, at, len(f.b), "no End")
		}
		require.Positive(t, at, "an empty field is not announced")
		require.Empty(t, bytes.Trim(f.b[at+1:], "\x00"))
	}
}

// FuzzLeaseReply: the same for the answer to a leasequery.
func FuzzLeaseReply(f *testing.F) {
	f.Add([]byte{51, 82}, []byte{0, 1, 2}, []byte{1, 2, 3, 4}, uint16(576), byte(3))
	f.Add([]byte(nil), bytes.Repeat([]byte{7}, 300), bytes.Repeat([]byte{1}, 255), uint16(0), byte(200))
	f.Fuzz(func(t *testing.T, list, id, relay []byte, size uint16, others byte) {
		q := Query{Type: LeaseQuery, GIAddr: netip.MustParseAddr("192.0.2.1"), Options: []Option{{OptMaxMessageSize, binary.BigEndian.AppendUint16(nil, size)}}}
		if list = list[:min(len(list), 600)]; list != nil {
			q.Options = append(q.Options, Option{OptParameterList, list})
		}
		var p Packet
		require.NoError(t, p.Parse(q.Append(nil)))
		r := LeaseReply{
			Type: LeaseActive, ServerID: netip.MustParseAddr("192.0.2.2"), IP: netip.MustParseAddr("192.0.2.3"), MAC: [6]byte(clientMAC),
			ClientID: id[:min(len(id), 700)], RelayInfo: relay[:min(len(relay), 255)], LeaseTime: 60, Options: testSet(t),
		}
		for range others {
			r.Associated = append(r.Associated, r.IP)
		}
		raw := r.Append(nil, &p)
		require.LessOrEqual(t, len(raw), p.MaxPayload())
		lib, err := dhcpv4.FromBytes(raw)
		require.NoError(t, err)
		require.Equal(t, clientMAC.String(), lib.ClientHWAddr.String())
		if bytes.IndexByte(list, OptRelayAgentInfo) >= 0 || list == nil {
			require.Equal(t, string(r.RelayInfo), string(lib.Options.Get(dhcpv4.OptionRelayAgentInformation)), "where the customer is comes first")
		}
		if got := lib.Options.Get(dhcpv4.OptionClientIdentifier); got != nil {
			require.Equal(t, string(r.ClientID), string(got))
		}
	})
}
