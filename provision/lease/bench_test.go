package lease

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// benchTable is a table in memory with n leases.
func benchTable(n uint32) *Table {
	t := New()
	for i := range n {
		r := testRecord(benchAddr(i))
		r.MAC = [6]byte{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		t.Store(r)
	}
	return t
}

func benchAddr(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24+i)
	return netip.AddrFrom4(b)
}

const benchLeases = 100_000

func BenchmarkTableRenew(b *testing.B) {
	t := benchTable(benchLeases)
	b.ReportAllocs()
	now := testNow
	for i := uint32(0); b.Loop(); i++ {
		n := i * 7919 % benchLeases
		now = now.Add(time.Millisecond)
		t.Renew(benchAddr(n), [6]byte{2, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, now, now.Add(time.Hour))
	}
}

func BenchmarkTableStore(b *testing.B) {
	t := benchTable(benchLeases)
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		r, _ := t.Get(benchAddr(i * 7919 % benchLeases))
		t.Store(r)
	}
}

func BenchmarkTableGet(b *testing.B) {
	t := benchTable(benchLeases)
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		t.Get(benchAddr(i * 7919 % benchLeases))
	}
}

// As BenchmarkTableRenew, with somebody who follows and keeps up.
func BenchmarkTableRenewFollowed(b *testing.B) {
	t := benchTable(benchLeases)
	f := t.Follow()
	buf := make([]Change, maxTaken)
	for n, _ := f.take(buf); n > 0; n, _ = f.take(buf) {
	}
	b.ReportAllocs()
	now := testNow
	for i := uint32(0); b.Loop(); i++ {
		n := i * 7919 % benchLeases
		now = now.Add(time.Millisecond)
		t.Renew(benchAddr(n), [6]byte{2, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, now, now.Add(time.Hour))
		if i%maxTaken == 0 {
			f.take(buf)
		}
	}
}

func BenchmarkFollow(b *testing.B) {
	t := benchTable(benchLeases)
	b.ReportAllocs()
	for b.Loop() {
		t.Follow().Close()
	}
}
