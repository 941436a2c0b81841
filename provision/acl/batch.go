package acl

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/usher-agent/usher/provision"
)

// perSet holds one value for each set, indexed by the set; index 0 is unused.
type perSet[T any] [provision.SetPaused + 1]T

// eachSet gives the sets in their order.
func eachSet() iter.Seq[provision.Set] {
	return func(yield func(provision.Set) bool) {
		for set := provision.SetStopped; set <= provision.SetPaused; set++ {
			if !yield(set) {
				return
			}
		}
	}
}

// contents are the elements of the sets, each sorted and without repeats. An
// address is a number here: its four octets, the first one highest.
type contents perSet[[]uint32]

func (c contents) acl() provision.ACL {
	return provision.ACL{
		Stopped: addresses(c[provision.SetStopped]),
		Paused:  addresses(c[provision.SetPaused]),
	}
}

func addresses(keys []uint32) []netip.Addr {
	out := make([]netip.Addr, len(keys))
	for i, k := range keys {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], k)
		out[i] = netip.AddrFrom4(a)
	}
	return out
}

// batch is a set of changes, each list sorted and without repeats.
type batch struct {
	adds, removes contents
}

func newBatch(changes []provision.Change) (batch, error) {
	var b batch
	for i, c := range changes {
		if c.Set != provision.SetStopped && c.Set != provision.SetPaused {
			return batch{}, fmt.Errorf("change %d: set %d does not exist", i, c.Set)
		}
		addr := c.Addr.Unmap()
		if !addr.Is4() {
			return batch{}, fmt.Errorf("change %d: %s %s: not an IPv4 address", i, c.Set, c.Addr)
		}
		a := addr.As4()
		key := binary.BigEndian.Uint32(a[:])
		switch c.Op {
		case provision.OpAdd:
			b.adds[c.Set] = append(b.adds[c.Set], key)
		case provision.OpRemove:
			b.removes[c.Set] = append(b.removes[c.Set], key)
		default:
			return batch{}, fmt.Errorf("change %d: operation %d does not exist", i, c.Op)
		}
	}
	for set := range eachSet() {
		b.adds[set], _ = tidy(b.adds[set])
		b.removes[set], _ = tidy(b.removes[set])
		for _, key := range b.removes[set] {
			if _, both := slices.BinarySearch(b.adds[set], key); both {
				return batch{}, fmt.Errorf("%s %s: both added and removed", set, addresses([]uint32{key})[0])
			}
		}
	}
	return b, nil
}

// tidy sorts keys in place and removes repeats; it gives how many there were.
func tidy(keys []uint32) (out []uint32, repeats int) {
	if !slices.IsSorted(keys) {
		slices.Sort(keys)
	}
	out = slices.Compact(keys)
	return out, len(keys) - len(out)
}

// len is the number of changes.
func (b batch) len() int {
	n := 0
	for set := range eachSet() {
		n += len(b.adds[set]) + len(b.removes[set])
	}
	return n
}

// each gives the sets that the batch touches.
func (b batch) each() iter.Seq[provision.Set] {
	return func(yield func(provision.Set) bool) {
		for set := range eachSet() {
			if len(b.adds[set])+len(b.removes[set]) > 0 && !yield(set) {
				return
			}
		}
	}
}

// missingFrom gives the part of the batch that does not hold yet.
func (b batch) missingFrom(have contents) batch {
	var out batch
	for set := range eachSet() {
		out.adds[set] = keep(b.adds[set], have[set], false)
		out.removes[set] = keep(b.removes[set], have[set], true)
	}
	return out
}

// keep gives the keys that are (or are not) in the sorted list.
func keep(keys, list []uint32, in bool) []uint32 {
	var out []uint32
	for _, key := range keys {
		if _, found := slices.BinarySearch(list, key); found == in {
			out = append(out, key)
		}
	}
	return out
}

// queue encodes the batch: additions to both sets before removals.
func (b batch) queue(c *nftables.Conn) error {
	for set := range eachSet() {
		if err := queueElements(c.SetAddElements, wantSet(set), b.adds[set]); err != nil {
			return err
		}
	}
	for set := range eachSet() {
		if err := queueElements(c.SetDeleteElements, wantSet(set), b.removes[set]); err != nil {
			return err
		}
	}
	return nil
}

// queueElements puts elements into messages of a bounded size.
func queueElements(f func(*nftables.Set, []nftables.SetElement) error, set *nftables.Set, keys []uint32) error {
	elements := make([]nftables.SetElement, 0, min(len(keys), chunk))
	for part := range slices.Chunk(keys, chunk) {
		elements = elements[:0]
		for _, key := range part {
			elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, key)})
		}
		if err := f(set, elements); err != nil {
			return err
		}
	}
	return nil
}
