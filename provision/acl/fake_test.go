package acl

import (
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fakeKernel answers netlink messages as nf_tables does, as far as this package
// asks, and fails where it is told to. What it gives back of chains, sets and
// rules are the attributes with which they were made.
type fakeKernel struct {
	t      *testing.T
	gen    uint32
	table  *fakeTable // nil: none
	egress []string   // devices of the chains of the table netdev, which is not read back
	gone   []string   // devices that are not there

	batches, dumps int  // how many were asked for
	noCount        bool // an older kernel

	// onBatch may replace the outcome of a batch: whether it is committed, and
	// the error that is told.
	onBatch func(n int) (commit bool, errno unix.Errno)
	// refuse may refuse to add an element.
	refuse func(key uint32) unix.Errno
	// onAdd may lose elements of one message.
	onAdd func(keys []uint32) []uint32
	// onDump may spoil the nth dump of elements.
	onDump func(n int, keys []uint32) (out []uint32, flags netlink.HeaderFlags)
}

type fakeTable struct {
	sets          map[string]*fakeSet
	chains, rules []netlink.Message
}

type fakeSet struct {
	attrs []byte
	keys  map[uint32]bool
}

func (k *fakeTable) clone() *fakeTable {
	if k == nil {
		return nil
	}
	c := &fakeTable{sets: map[string]*fakeSet{}, chains: slices.Clone(k.chains), rules: slices.Clone(k.rules)}
	for name, s := range k.sets {
		c.sets[name] = &fakeSet{s.attrs, maps.Clone(s.keys)}
	}
	return c
}

// openFake opens a Table on the fake.
func openFake(t *testing.T, k *fakeKernel) *Table {
	t.Helper()
	k.t, k.gen = t, 41
	table, err := open(t.Context(), k.handle())
	require.NoError(t, err)
	return table
}

func (k *fakeKernel) handle() *Table {
	dial := func() (*nftables.Conn, *netlink.Conn, error) {
		w, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
			if replies := k.answer(req); len(replies) > 0 {
				return replies, nil
			}
			return nil, io.EOF // nothing more to receive
		}))
		return w, netlink.NewConn(&fakeSocket{k: k}, 1), err
	}
	return &Table{log: discard(), dial: dial}
}

// fakeSocket is the lowest layer of a netlink.Conn.
type fakeSocket struct {
	k       *fakeKernel
	replies []netlink.Message
}

func (s *fakeSocket) Close() error                     { return nil }
func (s *fakeSocket) SetDeadline(time.Time) error      { return nil }
func (s *fakeSocket) SetReadDeadline(time.Time) error  { return nil }
func (s *fakeSocket) SetWriteDeadline(time.Time) error { return nil }
func (s *fakeSocket) Send(m netlink.Message) error     { return s.SendMessages([]netlink.Message{m}) }
func (s *fakeSocket) SendMessages(m []netlink.Message) error {
	s.replies = s.k.answer(m)
	return nil
}
func (s *fakeSocket) Receive() ([]netlink.Message, error) {
	defer func() { s.replies = nil }()
	return s.replies, nil
}
func (s *fakeSocket) ReceiveIter() iter.Seq2[netlink.Message, error] {
	return func(yield func(netlink.Message, error) bool) {
		replies, _ := s.Receive()
		for _, m := range replies {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// answer returns the replies to what was sent in one datagram.
func (k *fakeKernel) answer(req []netlink.Message) []netlink.Message {
	if len(req) == 0 {
		return nil
	}
	if req[0].Header.Type == unix.NFNL_MSG_BATCH_BEGIN {
		return k.batch(req)
	}
	m := req[0]
	a := k.attrs(m)
	if m.Data[0] == unix.NFPROTO_NETDEV {
		return failure(m, unix.ENOENT)
	}
	if k.table == nil && msgType(m) != unix.NFT_MSG_GETGEN {
		return failure(m, unix.ENOENT)
	}
	switch msgType(m) {
	case unix.NFT_MSG_GETGEN:
		return reply(m, unix.NFT_MSG_NEWGEN, attr(unix.NFTA_GEN_ID, u32(k.gen)))
	case unix.NFT_MSG_GETTABLE:
		use := len(k.table.sets) + len(k.table.chains)
		return reply(m, unix.NFT_MSG_NEWTABLE, attr(unix.NFTA_TABLE_NAME, []byte("usher\x00")),
			attr(unix.NFTA_TABLE_FLAGS, u32(0)), attr(unix.NFTA_TABLE_USE, u32(uint32(use))))
	case unix.NFT_MSG_GETSET:
		if m.Header.Flags&netlink.Dump == netlink.Dump {
			var out []netlink.Message
			for name := range k.table.sets {
				out = append(out, reply(m, unix.NFT_MSG_NEWSET, attr(unix.NFTA_SET_NAME, append([]byte(name), 0)))...)
			}
			return dump(m, 0, out...)
		}
		s := k.table.sets[a[unix.NFTA_SET_NAME]]
		if s == nil {
			return failure(m, unix.ENOENT)
		}
		if k.noCount {
			return reply(m, unix.NFT_MSG_NEWSET, s.attrs)
		}
		return reply(m, unix.NFT_MSG_NEWSET, s.attrs, attr(attrSetCount, u32(uint32(len(s.keys)))))
	case unix.NFT_MSG_GETCHAIN:
		var out []netlink.Message
		for _, c := range k.table.chains {
			out = append(out, reply(m, unix.NFT_MSG_NEWCHAIN, payload(c.Data))...)
		}
		return dump(m, 0, out...)
	case unix.NFT_MSG_GETRULE:
		var out []netlink.Message
		for _, r := range k.table.rules {
			if k.attrs(r)[unix.NFTA_RULE_CHAIN] == a[unix.NFTA_RULE_CHAIN] {
				out = append(out, reply(m, unix.NFT_MSG_NEWRULE, payload(r.Data))...)
			}
		}
		return dump(m, 0, out...)
	case unix.NFT_MSG_GETSETELEM:
		return k.elements(m, k.table.sets[a[unix.NFTA_SET_ELEM_LIST_SET]])
	}
	k.t.Errorf("unexpected question %d", msgType(m))
	return failure(m, unix.EOPNOTSUPP)
}

func (k *fakeKernel) elements(m netlink.Message, s *fakeSet) []netlink.Message {
	if s == nil {
		return failure(m, unix.ENOENT)
	}
	keys, flags := slices.Collect(maps.Keys(s.keys)), netlink.HeaderFlags(0)
	if name := k.attrs(m)[unix.NFTA_SET_ELEM_LIST_SET]; name != "stopped" && name != "paused" {
		// The sets that no test of failures fills.
	} else if k.dumps++; k.onDump != nil {
		keys, flags = k.onDump(k.dumps, keys)
	}
	var out []netlink.Message
	for part := range slices.Chunk(keys, 700) {
		var list [][]byte
		for _, x := range part {
			list = append(list, elementAttr(keyAttr(u32(x)...)))
		}
		out = append(out, reply(m, unix.NFT_MSG_NEWSETELEM, attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, list...))...)
	}
	return dump(m, flags, out...)
}

// batch is a transaction: all of it or nothing.
func (k *fakeKernel) batch(req []netlink.Message) []netlink.Message {
	k.batches++
	if gen := k.attrs(req[0])[unix.NFNL_BATCH_GENID]; gen != "" && gen != string(u32(k.gen)) {
		return failure(req[0], unix.ERESTART)
	}
	next := k.table.clone()
	var failed []netlink.Message
	var egress []string
	for _, m := range req[1 : len(req)-1] {
		if m.Data[0] == unix.NFPROTO_NETDEV {
			if device := k.device(m); slices.Contains(k.gone, device) {
				failed = append(failed, failure(m, unix.ENOENT)...)
			} else if device != "" {
				egress = append(egress, device)
			}
			continue
		}
		if errno := k.change(&next, m); errno != 0 {
			failed = append(failed, failure(m, errno)...)
		}
	}
	if len(failed) > 0 {
		return failed
	}
	commit, errno := true, unix.Errno(0)
	if k.onBatch != nil {
		commit, errno = k.onBatch(k.batches)
	}
	if commit {
		k.table = next
		k.gen++
		if egress != nil {
			k.egress = egress
		}
	}
	if errno != 0 {
		return failure(req[1], errno)
	}
	return nil
}

// device is that of a chain to be made.
func (k *fakeKernel) device(m netlink.Message) (name string) {
	if msgType(m) != unix.NFT_MSG_NEWCHAIN {
		return ""
	}
	require.NoError(k.t, eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
		if typ != unix.NFTA_CHAIN_HOOK {
			return nil
		}
		return eachAttr(v, func(typ uint16, v []byte) error {
			if typ == unix.NFTA_HOOK_DEV {
				name = string(bytes.TrimRight(v, "\x00"))
			}
			return nil
		})
	}))
	return name
}

func (k *fakeKernel) change(table **fakeTable, m netlink.Message) unix.Errno {
	a := k.attrs(m)
	t := *table
	switch msgType(m) {
	case unix.NFT_MSG_NEWTABLE:
		if t == nil {
			*table = &fakeTable{sets: map[string]*fakeSet{}}
		}
		return 0
	case unix.NFT_MSG_DELTABLE:
		if t == nil {
			return unix.ENOENT
		}
		*table = nil
		return 0
	}
	if t == nil {
		return unix.ENOENT
	}
	switch msgType(m) {
	case unix.NFT_MSG_NEWSET:
		t.sets[a[unix.NFTA_SET_NAME]] = &fakeSet{payload(m.Data), map[uint32]bool{}}
	case unix.NFT_MSG_NEWCHAIN:
		t.chains = append(t.chains, m)
	case unix.NFT_MSG_NEWRULE:
		t.rules = append(t.rules, m)
	case unix.NFT_MSG_DELRULE: // all of a chain
		t.rules = slices.DeleteFunc(t.rules, func(r netlink.Message) bool { return k.attrs(r)[unix.NFTA_RULE_CHAIN] == a[unix.NFTA_RULE_CHAIN] })
	case unix.NFT_MSG_DELCHAIN:
		t.chains = slices.DeleteFunc(t.chains, func(c netlink.Message) bool { return k.attrs(c)[unix.NFTA_CHAIN_NAME] == a[unix.NFTA_CHAIN_NAME] })
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		s := t.sets[a[unix.NFTA_SET_ELEM_LIST_SET]]
		if s == nil {
			return unix.ENOENT
		}
		keys, strange, err := appendElements(m.Data)
		require.NoError(k.t, err)
		require.Zero(k.t, strange)
		add := msgType(m) == unix.NFT_MSG_NEWSETELEM
		if add && k.onAdd != nil {
			keys = k.onAdd(keys)
		}
		for _, x := range keys {
			if !add && !s.keys[x] {
				return unix.ENOENT
			}
			if add && k.refuse != nil && k.refuse(x) != 0 {
				return k.refuse(x)
			}
			if delete(s.keys, x); add {
				s.keys[x] = true
			}
		}
	default:
		k.t.Errorf("unexpected change %d", msgType(m))
		return unix.EOPNOTSUPP
	}
	return 0
}

// attrs returns the attributes of a message; strings without their end mark.
func (k *fakeKernel) attrs(m netlink.Message) map[uint16]string {
	out := map[uint16]string{}
	require.NoError(k.t, eachAttr(payload(m.Data), func(typ uint16, v []byte) error {
		if len(v) > 4 || m.Header.Type != unix.NFNL_MSG_BATCH_BEGIN {
			v = bytes.TrimRight(v, "\x00")
		}
		out[typ] = string(v)
		return nil
	}))
	return out
}

func msgType(m netlink.Message) uint16 { return uint16(m.Header.Type) & 0xff }

func reply(m netlink.Message, typ uint16, parts ...[]byte) []netlink.Message {
	m.Header.Type, m.Header.Flags = netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|typ), 0
	m.Data = message(parts...)
	return []netlink.Message{m}
}

func dump(m netlink.Message, flags netlink.HeaderFlags, parts ...netlink.Message) []netlink.Message {
	m.Header.Type, m.Data = netlink.Done, nil
	parts = append(parts, m)
	for i := range parts {
		parts[i].Header.Flags = netlink.Multi | flags
	}
	return parts
}

func failure(m netlink.Message, errno unix.Errno) []netlink.Message {
	m.Header.Type, m.Header.Flags = netlink.Error, 0
	m.Data = binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return []netlink.Message{m}
}
