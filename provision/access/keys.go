package access

import (
	"iter"
	"net/netip"
	"slices"
	"sort"
)

// Keys are the keys of elements of one set behind each other, each as wide as
// the set says and as the kernel has it: 100,000 addresses are 400 kB. Being a
// string it is shared without care, and an element of it costs nothing.
type Keys string

// Addrs returns the keys of addresses, Prefixes those of prefixes and so on, in
// the order given. What is not IPv4, and a name that no interface can have, is
// left out.
func Addrs(list ...netip.Addr) Keys {
	return keysOf(SetStopped, list, func(a netip.Addr) Fields { return Fields{Addr: a} })
}

// Prefixes is like Addrs.
func Prefixes(list ...netip.Prefix) Keys {
	return keysOf(SetGarden, list, func(p netip.Prefix) Fields { return Fields{Prefix: p} })
}

// Interfaces is like Addrs.
func Interfaces(list ...string) Keys {
	return keysOf(SetGuardedDirect, list, func(name string) Fields { return Fields{Interface: name} })
}

// DirectBindings is like Addrs.
func DirectBindings(list ...DirectBinding) Keys {
	return keysOf(SetBoundDirect, list, func(b DirectBinding) Fields { return Fields{Addr: b.IP, MAC: b.MAC} })
}

// VLANBindings is like Addrs.
func VLANBindings(list ...VLANBinding) Keys {
	return keysOf(SetBoundVLAN, list, func(b VLANBinding) Fields { return Fields{Addr: b.IP, Interface: b.Interface} })
}

// keysOf returns the keys that the set, or another one of such keys, has for a list.
func keysOf[T any](s Set, list []T, fields func(T) Fields) Keys {
	b := make([]byte, 0, len(list)*s.Width())
	for _, x := range list {
		b, _ = s.appendKey(b, fields(x))
	}
	return Keys(b)
}

// compare orders keys: by their address, and then by what stands before it.
func compare(a, b string, lead int) int {
	x, y := a[lead:], b[lead:]
	if lead > 0 && x == y {
		x, y = a[:lead], b[:lead]
	}
	switch {
	case x < y:
		return -1
	case x == y:
		return 0
	default:
		return 1
	}
}

// Sorted returns the keys of the set in order and without repeats: the same if
// they are so already.
func (s Set) Sorted(k Keys) Keys {
	w, lead := s.Width(), s.lead()
	for i := w; i < len(k); i += w {
		if compare(string(k[i-w:i]), string(k[i:i+w]), lead) >= 0 {
			return s.sort(k)
		}
	}
	return k
}

// sort sorts by one byte after the other, the least significant first. It does
// not compare, so its time is proportional to the number of bytes.
func (s Set) sort(k Keys) Keys {
	w, lead := s.Width(), s.lead()
	from, to := []byte(k), make([]byte, len(k))
	for i := range w {
		at := (lead - 1 - i + w) % w
		var place [257]int // where the keys with a byte begin; first how many have the one before
		for p := at; p < len(from); p += w {
			place[int(from[p])+1] += w
		}
		if slices.Contains(place[:], len(from)) {
			continue // it is the same in all
		}
		for b := 1; b < len(place); b++ {
			place[b] += place[b-1]
		}
		for p := 0; p < len(from); p += w {
			n := &place[from[p+at]]
			copy(to[*n:*n+w], from[p:p+w])
			*n += w
		}
		from, to = to, from
	}
	out := from[:w]
	for p := w; p < len(from); p += w {
		if key := from[p : p+w]; string(key) != string(out[len(out)-w:]) {
			out = append(out, key...)
		}
	}
	return Keys(out)
}

// minus returns the keys of a that b lacks. Both are sorted.
func (s Set) minus(a, b Keys) Keys {
	w, lead := s.Width(), s.lead()
	stride := 64 * w
	var out []byte
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		// As a rule most is equal.
		for i+stride <= len(a) && j+stride <= len(b) && a[i:i+stride] == b[j:j+stride] {
			i, j = i+stride, j+stride
		}
		if i == len(a) || j == len(b) {
			break
		}
		switch c := compare(string(a[i:i+w]), string(b[j:j+w]), lead); {
		case c < 0:
			out = append(out, a[i:i+w]...)
			i += w
		case c == 0:
			i, j = i+w, j+w
		default:
			j += w
		}
	}
	if out == nil {
		return a[i:]
	}
	return Keys(append(out, a[i:]...))
}

// has reports whether the sorted keys hold a key.
func (s Set) has(k Keys, key string) bool {
	w, lead := s.Width(), s.lead()
	if w == 4 { // addresses alone: numbers are compared sooner than texts
		return hasNumber(k, numberOf(key))
	}
	low, high := 0, len(k)/w
	for low < high {
		mid := int(uint(low+high) / 2)
		switch c := compare(string(k[mid*w:mid*w+w]), key, lead); {
		case c == 0:
			return true
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return false
}

// hasNumber is has for keys of four bytes.
func hasNumber(k Keys, n uint32) bool {
	low, high := 0, len(k)/4
	for low < high {
		mid := int(uint(low+high) / 2)
		if numberOf(string(k[4*mid:])) < n {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return 4*low < len(k) && numberOf(string(k[4*low:])) == n
}

func numberOf(key string) uint32 {
	return uint32(key[0])<<24 | uint32(key[1])<<16 | uint32(key[2])<<8 | uint32(key[3])
}

// at returns the elements of the sorted keys that have an address. It does not allocate.
func (s Set) at(k Keys, addr [4]byte) Keys {
	w, lead := s.Width(), s.lead()
	first := sort.Search(len(k)/w, func(i int) bool { return string(k[i*w+lead:i*w+lead+len(addr)]) >= string(addr[:]) })
	last := first
	for last < len(k)/w && string(k[last*w+lead:last*w+lead+len(addr)]) == string(addr[:]) {
		last++
	}
	return k[first*w : last*w]
}

// ACL is the kernel state that follows from the subscribers' states and from
// the configuration: the elements of each set, indexed by the set; index 0 is
// unused. In a wanted ACL no address is in two of the sets of addresses, no
// prefix lies in another of its set, and all is sorted; in an observed one it
// may be otherwise.
type ACL [setEnd]Keys

// Elements returns the elements of a set.
func (a ACL) Elements(s Set) iter.Seq[Element] {
	return func(yield func(Element) bool) {
		w := s.Width()
		for k := string(a[s]); len(k) >= w; k = k[w:] {
			if !yield(Element{s, k[:w]}) {
				return
			}
		}
	}
}

// Strings returns the elements of a set as text; the list is never nil.
func (a ACL) Strings(s Set) []string {
	out := []string{}
	for e := range a.Elements(s) {
		out = append(out, e.String())
	}
	return out
}

// Has reports whether the element is in a sorted ACL.
func (a ACL) Has(e Element) bool { return e.Set.has(a[e.Set], e.Key) }

// Standing returns the first set that blocks an address, by itself or with its subnet; zero if none
// does. What it returns for a subnet is the set that addresses of the kind are in. The ACL is sorted. It does not allocate.
func (a *ACL) Standing(addr netip.Addr) Set {
	if s := a.hostStanding(addr); s != 0 {
		return s
	}
	return a.netStanding(addr)
}

// hostStanding is Standing for what blocks the address by itself.
func (a *ACL) hostStanding(addr netip.Addr) Set {
	if !addr.Is4() {
		return 0
	}
	key := addr.As4()
	for s := range Sets() {
		if s.descriptor().effect == blocks && s.has(a[s], string(key[:])) {
			return s
		}
	}
	return 0
}

// Sorted returns the ACL with every set in order and without repeats.
func (a ACL) Sorted() ACL {
	for s := range Sets() {
		a[s] = s.Sorted(a[s])
	}
	return a
}

// Minus returns the elements of a that b lacks. Both are sorted.
func (a ACL) Minus(b ACL) ACL {
	for s := range Sets() {
		a[s] = s.minus(a[s], b[s])
	}
	return a
}

// Counts returns the number of elements in each set.
func (a ACL) Counts() SetCounts {
	var n SetCounts
	for s := range Sets() {
		n[s] = len(a[s]) / s.Width()
	}
	return n
}

// Len returns the number of elements in all sets.
func (a ACL) Len() int { return a.Counts().total() }
