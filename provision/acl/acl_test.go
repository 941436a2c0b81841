package acl

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

func attr(typ uint16, parts ...[]byte) []byte {
	var v []byte
	for _, p := range parts {
		v = append(v, p...)
	}
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	return append(b, make([]byte, (4-len(v)%4)%4)...)
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func message(parts ...[]byte) []byte {
	b := []byte{unix.NFPROTO_INET, 0, 0, 0}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func elementAttr(parts ...[]byte) []byte {
	return attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, parts...)
}

func keyAttr(b ...byte) []byte {
	return attr(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, attr(unix.NFTA_DATA_VALUE, b))
}

// appendElements reads the elements of a message as those of the set stopped.
func appendElements(msg []byte) (keys []uint32, strange int, err error) {
	r := reading{set: access.SetStopped}
	err = eachElement(msg, func(e element) error {
		r.add(e)
		return nil
	})
	all, _ := r.done()
	for e := range (access.ACL{access.SetStopped: all}).Elements(access.SetStopped) {
		keys = append(keys, binary.BigEndian.Uint32([]byte(e.Key)))
	}
	return keys, r.strange, err
}

func TestEachElement(t *testing.T) {
	list := func(elements ...[]byte) []byte {
		return attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, elements...)
	}
	table := attr(unix.NFTA_SET_ELEM_LIST_TABLE, []byte("usher\x00"))
	tests := []struct {
		name    string
		msg     []byte
		want    []uint32
		strange int
		err     error
	}{
		{"nothing", nil, nil, 0, nil},
		{"header only", message(), nil, 0, nil},
		{"no elements", message(table, list()), nil, 0, nil},
		{"two", message(table, list(elementAttr(keyAttr(100, 64, 0, 1)), elementAttr(keyAttr(100, 64, 0, 2)))), []uint32{0x64400001, 0x64400002}, 0, nil},
		{"with a counter", message(list(elementAttr(attr(unix.NFTA_SET_ELEM_EXPR, attr(unix.NFTA_EXPR_NAME, []byte("counter\x00"))), keyAttr(192, 0, 2, 1)))), []uint32{0xc0000201}, 0, nil},
		{"catch-all", message(list(elementAttr(attr(unix.NFTA_SET_ELEM_FLAGS, u32(2))), elementAttr(keyAttr(192, 0, 2, 1)))), []uint32{0xc0000201}, 1, nil},
		{"end of an interval", message(list(elementAttr(keyAttr(192, 0, 2, 1), attr(unix.NFTA_SET_ELEM_FLAGS, u32(1))))), nil, 1, nil},
		{"key of another type", message(list(elementAttr(keyAttr(1, 2, 3, 4, 5, 6)))), nil, 1, nil},
		{"empty element", message(list(elementAttr())), nil, 1, nil},
		{"attribute longer than the message", append(message(), 200, 0, 3, 128), nil, 0, errShort},
		{"attribute shorter than its header", append(message(), 2, 0, 3, 0), nil, 0, errShort},
		{"cut in a header", append(message(list(elementAttr(keyAttr(192, 0, 2, 1)))), 8, 0), []uint32{0xc0000201}, 0, errShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, strange, err := appendElements(tt.msg)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
			require.Equal(t, tt.strange, strange)
		})
	}
}

func TestParseElement(t *testing.T) {
	u64 := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	counter := func(packets, bytes uint64) []byte {
		return append(attr(unix.NFTA_EXPR_NAME, []byte("counter\x00")),
			attr(unix.NFTA_EXPR_DATA, attr(unix.NFTA_COUNTER_BYTES, u64(bytes)), attr(unix.NFTA_COUNTER_PACKETS, u64(packets)))...)
	}
	tests := []struct {
		name string
		in   []byte
		want element
	}{
		{"nothing", nil, element{}},
		{"key", keyAttr(100, 64, 0, 1), element{key: []byte{100, 64, 0, 1}}},
		{"times", append(attr(unix.NFTA_SET_ELEM_TIMEOUT, u64(60_000)), attr(unix.NFTA_SET_ELEM_EXPIRATION, u64(1500))...),
			element{timeout: time.Minute, expires: 1500 * time.Millisecond}},
		{"a time past all counting", attr(unix.NFTA_SET_ELEM_EXPIRATION, u64(math.MaxUint64)),
			element{expires: math.MaxInt64 / time.Millisecond * time.Millisecond}},
		{"a short time", attr(unix.NFTA_SET_ELEM_TIMEOUT, u32(5)), element{}},
		{"one expression", attr(unix.NFTA_SET_ELEM_EXPR, counter(3, 252)), element{counter: access.Counter{Packets: 3, Bytes: 252}}},
		{"a list of expressions", attr(attrExpressions, attr(unix.NFTA_LIST_ELEM, counter(1, 84))), element{counter: access.Counter{Packets: 1, Bytes: 84}}},
		{"another expression", attr(unix.NFTA_SET_ELEM_EXPR, attr(unix.NFTA_EXPR_NAME, []byte("quota\x00")), attr(unix.NFTA_EXPR_DATA, u64(9))), element{}},
		{"flags", attr(unix.NFTA_SET_ELEM_FLAGS, u32(1)), element{flags: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseElement(tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestReadingOfIntervals(t *testing.T) {
	start := func(a string) element {
		b := netip.MustParseAddr(a).As4()
		return element{key: b[:]}
	}
	end := func(a string) element {
		e := start(a)
		e.flags = unix.NFT_SET_ELEM_INTERVAL_END
		return e
	}
	tests := []struct {
		name             string
		in               []element
		want             string
		strange, repeats int
	}{
		{"none", nil, "", 0, 0},
		{"one, in the kernel's order", []element{end("192.0.3.0"), start("192.0.2.0")}, "192.0.2.0/24", 0, 0},
		{"neighbours", []element{start("10.1.0.0"), end("10.1.0.0"), start("10.0.0.0"), end("10.2.0.0")}, "10.0.0.0/16 10.1.0.0/16", 0, 0},
		{"neighbours without the end between", []element{start("10.1.0.0"), start("10.0.0.0"), end("10.2.0.0")}, "10.0.0.0/16 10.1.0.0/16", 0, 0},
		{"everything", []element{start("0.0.0.0")}, "0.0.0.0/0", 0, 0},
		{"up to the last address", []element{start("255.255.255.255")}, "255.255.255.255/32", 0, 0},
		{"nft's end before all", []element{end("0.0.0.0"), start("192.0.2.1"), end("192.0.2.2")}, "192.0.2.1/32", 0, 0},
		{"a range that is no prefix", []element{start("192.0.2.1"), end("192.0.2.4")}, "", 1, 0},
		{"a range of a prefix's size in another place", []element{start("192.0.2.1"), end("192.0.2.3")}, "", 1, 0},
		{"twice", []element{start("192.0.2.0"), end("192.0.2.1"), start("192.0.2.0")}, "192.0.2.0/32", 0, 1},
		{"catch-all", []element{{flags: 2}}, "", 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := reading{set: access.SetGarden}
			for _, e := range tt.in {
				r.add(e)
			}
			keys, repeats := r.done()
			var got []string
			for e := range (access.ACL{access.SetGarden: keys}).Elements(access.SetGarden) {
				got = append(got, e.String())
			}
			require.Equal(t, tt.want, strings.Join(got, " "))
			require.Equal(t, [2]int{tt.strange, tt.repeats}, [2]int{r.strange, repeats})
		})
	}
}

func TestParseSet(t *testing.T) {
	comment := func(s string) []byte { return append([]byte{7, byte(len(s) + 1)}, s+"\x00"...) }
	udata := func(b []byte) []byte { return message(attr(unix.NFTA_SET_USERDATA, b)) }
	flags := attr(unix.NFTA_SET_FLAGS, u32(unix.NFT_SET_INTERVAL))
	tests := []struct {
		name string
		msg  []byte
		want setInfo
		err  string
	}{
		{"nothing", nil, setInfo{count: countUnknown}, ""},
		{"all", message(flags, attr(unix.NFTA_SET_KEY_TYPE, u32(7)), attr(unix.NFTA_SET_KEY_LEN, u32(4)),
			attr(unix.NFTA_SET_USERDATA, append([]byte{0, 4, 2, 0, 0, 0}, comment("hello")...)), attr(attrSetCount, u32(100_000))),
			setInfo{flags: unix.NFT_SET_INTERVAL, keyType: 7, keyLen: 4, comment: "hello", count: 100_000}, ""},
		{"comment without its end mark", udata([]byte{7, 2, 'h', 'i'}), setInfo{comment: "hi", count: countUnknown}, ""},
		{"empty comment", udata([]byte{7, 0}), setInfo{count: countUnknown}, ""},
		{"comment past the end", udata([]byte{7, 9, 'h'}), setInfo{count: countUnknown}, ""},
		{"other data past the end", udata([]byte{0, 255}), setInfo{count: countUnknown}, ""},
		{"short flags", message(attr(unix.NFTA_SET_FLAGS, []byte{1})), setInfo{count: countUnknown}, "set attribute 3: 1 bytes, want 4"},
		{"long count", message(attr(attrSetCount, make([]byte, 8))), setInfo{count: countUnknown}, "set attribute 20: 8 bytes, want 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseSet(tt.msg)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// Whatever bytes arrive, nothing panics, and no element is made up: each takes
// at least the room of its attributes.
func FuzzParse(f *testing.F) {
	f.Add(message(attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, elementAttr(keyAttr(100, 64, 0, 1)), elementAttr(keyAttr(100, 64, 0, 2)))))
	f.Add(message(attr(unix.NFTA_SET_FLAGS, u32(4)), attr(unix.NFTA_SET_USERDATA, []byte{7, 2, 'h', 'i'}), attr(attrSetCount, u32(3))))
	f.Add(append(message(), 200, 0, 3, 128))
	f.Add(message(attr(attrGenPID, u32(7)), attr(attrGenName, []byte("nft\x00"))))
	f.Add(message(attr(unix.NFTA_TABLE_NAME, []byte("usher\x00"))))
	f.Add(message(attr(unix.NFTA_CHAIN_TABLE, []byte("usher\x00")), attr(unix.NFTA_CHAIN_HOOK, attr(4, attr(1, []byte("eth1\x00")), attr(1, []byte("eth2\x00"))))))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, strange, _ := appendElements(b)
		if n := len(keys)*16 + strange*4; n > len(b) {
			t.Errorf("%d keys and %d strange elements of %d bytes", len(keys), strange, len(b))
		}
		_ = eachElement(b, func(e element) error {
			r := reading{set: access.SetGarden}
			r.add(e)
			keys, _ := r.done()
			for e := range (access.ACL{access.SetGarden: keys}).Elements(access.SetGarden) {
				if !e.Fields().Prefix.IsValid() {
					t.Errorf("%x is no prefix", e.Key)
				}
			}
			return nil
		})
		if w, err := parseWriter(b); err == nil && len(w.name) > 3*len(b) {
			t.Errorf("%v of %d bytes", w, len(b))
		}
		touches(b)
		if _, _, devices, _ := parseChain(b); len(devices)*4 > len(b) {
			t.Errorf("%d interfaces of %d bytes", len(devices), len(b))
		}
		info, _ := parseSet(b)
		if info.count < countUnknown || len(info.comment) > len(b) {
			t.Errorf("%+v of %d bytes", info, len(b))
		}
	})
}

func TestNewBatch(t *testing.T) {
	a, b, mapped := access.Addrs(netip.MustParseAddr("100.64.0.1")), access.Addrs(netip.MustParseAddr("100.64.0.2")), access.Addrs(netip.MustParseAddr("::ffff:100.64.0.1"))
	const add, remove, stopped, paused = provision.OpAdd, provision.OpRemove, access.SetStopped, access.SetPaused
	const tooMany = access.Set(len(access.ACL{}))
	one := func(op provision.Op, set access.Set, key access.Keys) access.Change {
		return access.Change{Op: op, Element: access.Element{Set: set, Key: string(key)}}
	}
	tests := []struct {
		name    string
		changes []access.Change
		len     int
		err     string
	}{
		{"none", nil, 0, ""},
		{"unsorted, one twice", []access.Change{one(add, stopped, b), one(add, stopped, a), one(add, stopped, b)}, 2, ""},
		{"from one set to the other", []access.Change{one(add, paused, a), one(remove, stopped, a)}, 2, ""},
		{"mapped form is the same address", []access.Change{one(add, paused, a), one(add, paused, mapped)}, 1, ""},
		{"two addresses for one", []access.Change{one(add, paused, a), one(add, stopped, a+b)}, 0, "change 1: stopped: a key of 8 bytes, want 4"},
		{"no address", []access.Change{one(add, stopped, "")}, 0, "change 0: stopped: a key of 0 bytes, want 4"},
		{"no set", []access.Change{one(add, 0, a)}, 0, "change 0: set 0 does not exist"},
		{"a set too many", []access.Change{one(add, tooMany, a)}, 0, fmt.Sprintf("change 0: set %d does not exist", uint8(tooMany))},
		{"no operation", []access.Change{one(0, stopped, a)}, 0, "change 0: operation 0 does not exist"},
		{"contradiction", []access.Change{one(add, stopped, b), one(add, stopped, a), one(remove, stopped, a)}, 0, "stopped 100.64.0.1: both added and removed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := newBatch(tt.changes)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				require.EqualError(t, NewDryRun(nil).Apply(t.Context(), tt.changes), "acl: dry run: "+tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.len, got.len())
		})
	}
}

// sent returns the messages that a batch is made of, without those around them.
func sent(t *testing.T, b batch) []netlink.Message {
	t.Helper()
	var got []netlink.Message
	c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		got = append(got, req...)
		return nil, io.EOF
	}))
	require.NoError(t, err)
	require.NoError(t, b.queue(c))
	require.NoError(t, c.Flush())
	require.Greater(t, len(got), 2)
	require.EqualValues(t, unix.NFNL_MSG_BATCH_BEGIN, got[0].Header.Type)
	require.EqualValues(t, unix.NFNL_MSG_BATCH_END, got[len(got)-1].Header.Type)
	return got[1 : len(got)-1]
}

func TestBatchGoesOutInPiecesAdditionsFirst(t *testing.T) {
	var b batch
	for i := range uint32(2500) {
		b.removes[access.SetStopped] += nums(i)
		b.adds[access.SetPaused] += nums(i)
	}
	b.adds[access.SetStopped] = nums(9999)
	type piece struct {
		typ, elements int
		set           string
	}
	const newElem, delElem = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM
	var got []piece
	for _, m := range sent(t, b) {
		p := piece{typ: int(m.Header.Type)}
		keys, strange, err := appendElements(m.Data)
		require.NoError(t, err)
		require.Zero(t, strange)
		p.elements = len(keys)
		require.NoError(t, eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
			require.Less(t, len(v), math.MaxUint16-4)
			if typ == unix.NFTA_SET_ELEM_LIST_SET {
				p.set = strings.TrimRight(string(v), "\x00")
			}
			return nil
		}))
		got = append(got, p)
	}
	require.Equal(t, []piece{
		{newElem, 1, "stopped"},
		{newElem, 1000, "paused"}, {newElem, 1000, "paused"}, {newElem, 500, "paused"},
		{delElem, 1000, "stopped"}, {delElem, 1000, "stopped"}, {delElem, 500, "stopped"},
	}, got)
}

// nums are addresses as keys.
func nums(v ...uint32) access.Keys {
	var out []byte
	for _, x := range v {
		out = binary.BigEndian.AppendUint32(out, x)
	}
	return access.Keys(out)
}

func TestMissingFrom(t *testing.T) {
	var b batch
	var have access.ACL
	b.adds[access.SetStopped] = nums(1, 2, 3)
	b.removes[access.SetPaused] = nums(2, 5)
	have[access.SetStopped] = nums(2, 7)
	have[access.SetPaused] = nums(1, 5)
	got := b.missingFrom(have)
	require.Equal(t, nums(1, 3), got.adds[access.SetStopped])
	require.Equal(t, nums(5), got.removes[access.SetPaused])
	require.Equal(t, 3, got.len())
	have[access.SetStopped], have[access.SetPaused] = b.adds[access.SetStopped], ""
	require.Zero(t, b.missingFrom(have).len())
}

func TestNextGeneration(t *testing.T) {
	require.EqualValues(t, 8, nextGeneration(7))
	require.EqualValues(t, 1, nextGeneration(math.MaxUint32))
}

func TestDryRunRemembers(t *testing.T) {
	ctx := context.Background()
	d := NewDryRun(nil)
	want := access.ACL{
		access.SetStopped: access.Addrs(netip.MustParseAddr("100.64.0.1")),
		access.SetPaused:  access.Addrs(netip.MustParseAddr("100.64.0.2")),
	}
	require.NoError(t, d.Apply(ctx, access.Plan(want, access.ACL{})))
	have, err := d.Observe(ctx)
	require.NoError(t, err)
	require.Equal(t, want, have)
	changed, err := d.Changed(ctx)
	require.NoError(t, err)
	require.False(t, changed)
	require.NoError(t, d.Apply(ctx, access.Plan(access.ACL{}, have)))
	have, err = d.Observe(ctx)
	require.NoError(t, err)
	require.Zero(t, have.Len())
}
