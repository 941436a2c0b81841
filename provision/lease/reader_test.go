package lease

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// Texts of many records lie in one piece of memory, and yet each is its own.
func TestTextsOfRecordsAreApart(t *testing.T) {
	var d decoder
	var all []Record
	want := func(i int) Record {
		r := testRecord(benchAddr(uint32(i)))
		r.ClientID, r.Option82 = Hex(fmt.Sprintf("client %d", i)), Hex(bytes.Repeat([]byte{byte(i)}, i*7%1500))
		if len(r.Option82) == 0 {
			r.Option82 = nil
		}
		r.Start, r.Renewed, r.Expires = r.Start.UTC(), r.Renewed.UTC(), r.Expires.UTC()
		return r
	}
	for i := range 1000 {
		r := want(i)
		v := encode(nil, &r)
		all = append(all, Record{})
		require.NoError(t, d.decode(&all[i], keyBytes(ipKey(r.IP)), v))
		clear(v)
		all[i].ClientID = append(all[i].ClientID, "and more"...)
	}
	for i := range all {
		r := want(i)
		r.ClientID = append(r.ClientID, "and more"...)
		require.Equal(t, r, all[i])
	}
}

// What a store tells one by one, with errors between, comes to what it tells.
func TestRecordsOneByOneAndTogether(t *testing.T) {
	for _, n := range []int{0, 1, readChunk - 1, readChunk, readChunk + 1, 3*readChunk + 5} {
		tab := New()
		each := (&sink{room: entryRoom(nil), take: tab.load}).each()
		for i := range n {
			r := testRecord(benchAddr(uint32(i + 1)))
			r.MAC = provision.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
			each(r, nil)
			if i%100 == 0 {
				each(Record{}, fmt.Errorf("damage %d", i))
			}
		}
		require.Equal(t, n, tab.Len())
		bad, _ := tab.Skipped()
		require.Equal(t, (n+99)/100, bad)
		for i := range n {
			require.Len(t, tab.ByMAC(provision.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}), 1)
		}
	}
}
