package wire

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// RFC 2132 section 9.8: in the order that the client wants, and its order says who gets room first.
func TestParameterListOrder(t *testing.T) {
	set := testSet(t, Option{200, []byte("x")})
	got := ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 6, 42, 200, 3, 1, 200, 6, 255)))
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 42, 200, 3, 6}, codes(t, got), "each once")

	big := bytes.Repeat([]byte{7}, 240)
	set = testSet(t, Option{201, big}, Option{202, big})
	got = ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 3, 202, 201, 6, 255)))
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 202, 6}, codes(t, got), "202 before 201, and 201 fits nowhere")
}

func TestOnlyAskedOptions(t *testing.T) {
	set := testSet(t, Option{OptIPv6OnlyWait, []byte{0, 0, 7, 8}}, Option{OptClasslessRoutes, []byte{0, 192, 0, 2, 1}}, Option{OptMicrosoftRoutes, []byte{0, 192, 0, 2, 1}})
	got := codes(t, ack(set).Append(nil, parsed(t, bare(53, 1, 3, 255))))
	assert.NotContains(t, got, OptIPv6OnlyWait)
	assert.NotContains(t, got, OptMicrosoftRoutes)
	got = codes(t, ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 2, 108, 249, 255))))
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 108, 249}, got)
}

func TestAlwaysSentOptions(t *testing.T) {
	set, err := NewOptionSet([]Option{{6, []byte{192, 0, 2, 3}}, {43, []byte("x")}, {66, []byte("y")}}, 43)
	require.NoError(t, err)
	assert.Equal(t, []int{53, 54, 51, 58, 59, 6, 43}, codes(t, ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 1, 6, 255)))))
	assert.Equal(t, []int{53, 54, 51, 58, 59, 43, 6}, codes(t, ack(set).Append(nil, parsed(t, bare(53, 1, 3, 55, 2, 43, 6, 255)))))
}

// RFC 3925: a client that says whose it is gets its vendor's part, others all.
func TestVendorIdentifying(t *testing.T) {
	one, two := []byte{0, 0, 0x0d, 0xe9, 3, 1, 1, 'a'}, []byte{0, 0, 0, 9, 3, 1, 1, 'b'}
	set := testSet(t, Option{OptVendorIdentifying, append(bytes.Clone(one), two...)})
	ask := func(options ...byte) []byte {
		return parsed(t, ack(set).Append(nil, parsed(t, bare(append([]byte{53, 1, 3, 55, 1, 125}, options...)...)))).AppendOption(nil, OptVendorIdentifying)
	}
	assert.Equal(t, append(bytes.Clone(one), two...), ask(255))
	assert.Equal(t, two, ask(124, 5, 0, 0, 0, 9, 0, 255))
	assert.Equal(t, one, ask(125, 13, 0, 0, 0, 8, 0, 0, 0, 0x0d, 0xe9, 3, 1, 1, 'x', 255))
	assert.Empty(t, ask(124, 5, 0, 0, 0, 7, 0, 255))
	assert.Equal(t, append(bytes.Clone(one), two...), ask(124, 5, 0, 0, 0, 9, 9, 255), "one that cannot be read says nothing")

	for _, bad := range [][]byte{{0, 0, 0, 9}, {0, 0, 0, 9, 3, 1}, append(bytes.Clone(one), one...)} {
		_, err := NewOptionSet([]Option{{OptVendorIdentifying, bad}})
		assert.ErrorContains(t, err, "option 125", "%x", bad)
	}
}

func TestBoot(t *testing.T) {
	set, err := testSet(t).WithBoot(Boot{NextServer: netip.MustParseAddr("192.0.2.80"), ServerName: "boot", File: "stb.img"})
	require.NoError(t, err)
	lib, err := dhcpv4.FromBytes(ack(set).Append(nil, parsed(t, bare(53, 1, 3, 255))))
	require.NoError(t, err)
	assert.Equal(t, "192.0.2.80", lib.ServerIPAddr.String())
	assert.Equal(t, "boot", lib.ServerHostName)
	assert.Equal(t, "stb.img", lib.BootFileName)

	for _, bad := range []Boot{{NextServer: netip.IPv6Loopback()}, {ServerName: string(make([]byte, 64))}, {File: string(make([]byte, 128))}} {
		_, err := testSet(t).WithBoot(bad)
		assert.Error(t, err)
	}
}

// Where the client's maximum leaves no room for all, file and sname take options,
// in this order, unless they say what they are made for.
func TestReplyOverload(t *testing.T) {
	text := func(code uint8, n int) Option { return Option{code, bytes.Repeat([]byte{code}, n)} }
	set := testSet(t, text(201, 150), text(202, 110), text(203, 50), text(204, 20), text(205, 9))
	opt82 := bytes.Repeat([]byte{9, 1, 7}, 20)
	req := parsed(t, append(bare(53, 1, 3, 82, 60), opt82...))
	check := func(t *testing.T, set *OptionSet, overload byte, want ...uint8) []byte {
		t.Helper()
		raw := ack(set).Append([]byte("x"), req)[1:]
		require.LessOrEqual(t, len(raw), 548)
		got := parsed(t, raw)
		if v, ok := got.Option(OptOverload); overload == 0 {
			assert.False(t, ok)
		} else {
			assert.Equal(t, []byte{overload}, v)
		}
		for code := uint8(201); code <= 205; code++ {
			v, ok := got.Option(code)
			assert.Equal(t, bytes.Contains(want, []byte{code}), ok, "option %d", code)
			if ok {
				assert.True(t, bytes.Equal(v, bytes.Repeat([]byte{code}, len(v))), "option %d", code)
			}
		}
		assert.True(t, bytes.HasSuffix(bytes.TrimRight(raw, "\x00"), append(append([]byte{82, 60}, opt82...), 255)), "option 82 whole, last, in the options field")
		return raw
	}
	raw := check(t, set, 3, 201, 202, 203, 204, 205)
	assert.EqualValues(t, 202, raw[fileAt])
	assert.EqualValues(t, 203, raw[snameAt])

	named, err := set.WithBoot(Boot{ServerName: "boot"})
	require.NoError(t, err)
	raw = check(t, named, 1, 201, 202, 204, 205)
	assert.Equal(t, "boot", string(raw[snameAt:snameAt+4]))

	booting, err := set.WithBoot(Boot{File: "stb.img"})
	require.NoError(t, err)
	check(t, booting, 2, 201, 203, 204, 205)

	both, err := set.WithBoot(Boot{File: "stb.img", ServerName: "boot"})
	require.NoError(t, err)
	check(t, both, 0, 201, 204)

	huge := testSet(t, text(201, 150), text(202, 250))
	check(t, huge, 0, 201)
}

// RFC 3396: what is longer than an option comes in parts, also across the fields
// of an overloaded packet, and goes back in parts.
func TestLongTextsAreJoined(t *testing.T) {
	id := bytes.Repeat([]byte("0123456789"), 30)
	req := bare(53, 1, 3, 57, 2, 5, 220)
	req = append(append(req, 61, 255), id[:255]...)
	req = append(append(req, 60, 2, 'a', 'b', 61, 45), id[255:]...)
	req = append(req, 60, 1, 'c', 55, 1, 6, 55, 1, 3, 50, 4, 192, 0, 2, 1, 50, 4, 192, 0, 2, 2, 255)
	p := parsed(t, req)
	assert.Equal(t, id, p.ClientID())
	assert.Equal(t, "abc", string(p.VendorClass()))
	assert.Equal(t, []byte{6, 3}, p.ParameterList())
	assert.Equal(t, "192.0.2.1", p.Requested().String(), "numbers are not joined")
	assert.True(t, p.Duplicate())
	got := ack(testSet(t)).Append(nil, p)
	assert.Equal(t, []int{53, 54, 51, 58, 59, 1, 61, 61, 6, 3}, codes(t, got))
	assert.Equal(t, id, parsed(t, got).ClientID(), "echoed in parts")

	over := bare(53, 1, 3, 52, 1, 1, 61, 2, 0, 'x', 255)
	copy(over[fileAt:], []byte{61, 3, 'y', 'z', 'w', 255})
	assert.Equal(t, "\x00xyzw", string(parsed(t, over).ClientID()))

	assert.Zero(t, testing.AllocsPerRun(50, func() { _ = p.Parse(req) }), "the room is kept")
	require.NoError(t, p.Parse(bare(53, 1, 3, 255)))
	assert.Nil(t, p.ClientID())
}

func TestRapidCommit(t *testing.T) {
	assert.True(t, parsed(t, bare(53, 1, 1, 80, 0, 255)).RapidCommit())
	assert.False(t, parsed(t, bare(53, 1, 1, 255)).RapidCommit())
	r := ack(testSet(t))
	r.RapidCommit = true
	assert.Equal(t, []int{53, 54, 51, 58, 59, 80, 1}, codes(t, r.Append(nil, parsed(t, bare(53, 1, 1, 55, 1, 80, 80, 0, 255)))))
}
