package wal

import "slices"

// places is where in a file the newest frame of each key is. Keys of up to six bytes, such as addresses of IPv4, are numbers.
type places struct {
	short map[uint64]int64
	long  map[string]int64
}

func newPlaces() places { return places{short: map[uint64]int64{}, long: map[string]int64{}} }

func (p *places) set(frame []byte, at int64) {
	if k, ok := short(frame); ok {
		p.short[k] = at
		return
	}
	p.long[longKey(frame)] = at
}

func (p *places) is(frame []byte, at int64) bool {
	var newest int64
	var ok bool
	if k, isShort := short(frame); isShort {
		newest, ok = p.short[k]
	} else {
		newest, ok = p.long[longKey(frame)]
	}
	return ok && newest == at
}

// keys is a set of keys. Of short ones those that differ in their last byte alone, as addresses of a network do, stand together.
type keys struct {
	short map[uint64]*[4]uint64
	long  map[string]struct{}
	last  uint64     // of the keys that were asked for last, all but the last byte
	there *[4]uint64 // those; nil: none
}

// group returns the keys that differ from a short one in the last byte alone; nil: there are none.
func (s *keys) group(k uint64) *[4]uint64 {
	if s.there == nil || s.last != k>>8 {
		s.last, s.there = k>>8, s.short[k>>8]
	}
	return s.there
}

func (s *keys) has(frame []byte) bool {
	if k, ok := short(frame); ok {
		g := s.group(k)
		return g != nil && g[byte(k)>>6]&(1<<(k&63)) != 0
	}
	_, ok := s.long[longKey(frame)]
	return ok
}

// add reports whether the key of a frame was not there before.
func (s *keys) add(frame []byte) bool {
	if s.short == nil {
		s.short, s.long = map[uint64]*[4]uint64{}, map[string]struct{}{}
	}
	if s.has(frame) {
		return false
	}
	k, ok := short(frame)
	if !ok {
		s.long[longKey(frame)] = struct{}{}
		return true
	}
	if s.there == nil {
		s.there = new([4]uint64)
		s.short[k>>8] = s.there
	}
	s.there[byte(k)>>6] |= 1 << (k & 63)
	return true
}

// short returns the key of a frame with its kind and length as a number.
func short(frame []byte) (key uint64, ok bool) {
	n := int(frame[14])
	if n > 6 {
		return 0, false
	}
	key = uint64(frame[kindAt])<<8 | uint64(n)
	for _, b := range frame[frameLen : frameLen+n] {
		key = key<<8 | uint64(b)
	}
	return key, true
}

// wholeKey is the same for other keys.
func wholeKey(frame []byte) []byte { return frame[12 : frameLen+int(frame[14])] }

// longKey leaves the flags out, which are not of the key.
func longKey(frame []byte) string {
	b := slices.Clone(wholeKey(frame))
	b[1] = 0
	return string(b)
}
