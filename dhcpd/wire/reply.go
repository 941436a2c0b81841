package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Option is one option to send: its value is encoded already.
type Option struct {
	Code  uint8
	Value []byte
}

// OptionSet is what some clients are told, serialised once: options in the order
// in which a client without a parameter list needs them, and the fields for booting.
type OptionSet struct {
	mask    []byte // option 1, sent whether asked for or not
	options []encodedOption
	index   [256]uint8 // by code: 1 + place of the first of options with it; 0: none
	always  bool       // some of options are sent whether asked for or not
	boot    Boot
}

type encodedOption struct {
	code       uint8
	always     bool   // sent whether asked for or not
	enterprise uint32 // of a part of option 125
	bytes      []byte // one or more instances with code and length (RFC 3396)
}

// Boot is the header's say on where the next stage of a boot comes from (RFC 2131
// section 2): siaddr, sname and file. Zero values leave them empty.
type Boot struct {
	NextServer netip.Addr
	ServerName string // at most 63 bytes
	File       string // at most 127 bytes
}

// needed is the order of need of the options that a client cannot do without; all others follow
// in the order given.
var needed = [...]uint8{OptRouter, OptDNS, OptClasslessRoutes, OptDomainName, OptNTP}

// ErrOptionReserved says that a code is filled by the server or by a relay and cannot be configured.
var ErrOptionReserved = errors.New("this option is filled by the server itself")

// NewOptionSet serialises options. A code may come once, but 125 once an
// enterprise. Values above 255 bytes are split as RFC 3396 says. The codes of
// always are sent also to a client whose parameter list lacks them.
func NewOptionSet(options []Option, always ...uint8) (*OptionSet, error) {
	s := &OptionSet{}
	var seen [256]bool
	for _, o := range options {
		switch o.Code {
		case OptPad, OptEnd, OptRequestedIP, OptLeaseTime, OptOverload, OptMessageType, OptServerID,
			OptParameterList, OptMessage, OptMaxMessageSize, OptRenewalTime, OptRebindingTime,
			OptClientID, OptRapidCommit, OptRelayAgentInfo:
			return nil, fmt.Errorf("option %d: %w", o.Code, ErrOptionReserved)
		}
		if seen[o.Code] && o.Code != OptVendorIdentifying {
			return nil, fmt.Errorf("option %d: given twice", o.Code)
		}
		seen[o.Code] = true
		if o.Code == OptSubnetMask && len(o.Value) != 4 {
			return nil, fmt.Errorf("option %d: %d bytes, want 4", o.Code, len(o.Value))
		}
		switch o.Code {
		case OptSubnetMask:
			s.mask = encodeOption(o)
		case OptVendorIdentifying:
			if err := s.addEnterprises(o.Value); err != nil {
				return nil, err
			}
		default:
			s.options = append(s.options, encodedOption{code: o.Code, bytes: encodeOption(o)})
		}
	}
	slices.SortStableFunc(s.options, func(a, b encodedOption) int { return rank(a.code) - rank(b.code) })
	if len(s.options) > 254 {
		return nil, fmt.Errorf("%d options, want at most 254", len(s.options))
	}
	for i := range s.options {
		o := &s.options[i]
		if s.index[o.code] == 0 {
			s.index[o.code] = uint8(i + 1)
		}
		o.always = slices.Contains(always, o.code)
		s.always = s.always || o.always
	}
	return s, nil
}

// addEnterprises cuts option 125 into its enterprises: each becomes an instance of
// its own, which a client joins again (RFC 3925 section 4), so that a client that
// says whose it is gets its vendor's part only. All parts stand together.
func (s *OptionSet) addEnterprises(v []byte) error {
	for len(v) > 0 {
		if len(v) < 5 || len(v) < 5+int(v[4]) {
			return fmt.Errorf("option %d: want blocks of enterprise number, length and data", OptVendorIdentifying)
		}
		n := 5 + int(v[4])
		enterprise := binary.BigEndian.Uint32(v)
		if slices.ContainsFunc(s.options, func(o encodedOption) bool {
			return o.code == OptVendorIdentifying && o.enterprise == enterprise
		}) {
			return fmt.Errorf("option %d: enterprise %d given twice", OptVendorIdentifying, enterprise)
		}
		s.options = append(s.options, encodedOption{
			code: OptVendorIdentifying, enterprise: enterprise,
			bytes: encodeOption(Option{OptVendorIdentifying, v[:n]}),
		})
		v = v[n:]
	}
	return nil
}

// WithBoot returns a copy of s with the header's fields for booting.
func (s *OptionSet) WithBoot(b Boot) (*OptionSet, error) {
	if b.NextServer.IsValid() && !b.NextServer.Is4() {
		return nil, fmt.Errorf("next server %v: want an IPv4 address", b.NextServer)
	}
	if len(b.ServerName) >= snameLen {
		return nil, fmt.Errorf("server name of %d bytes, want at most %d", len(b.ServerName), snameLen-1)
	}
	if len(b.File) >= fileLen {
		return nil, fmt.Errorf("boot file of %d bytes, want at most %d", len(b.File), fileLen-1)
	}
	c := *s
	c.boot = b
	return &c, nil
}

// onlyAsked are options that no client gets that did not ask for them by name: 108
// would end IPv4 on a host that is not made for it (RFC 8925 section 3.3), 249 is a copy of 121.
func onlyAsked(code uint8) bool { return code == OptIPv6OnlyWait || code == OptMicrosoftRoutes }

func rank(code uint8) int {
	if i := slices.Index(needed[:], code); i >= 0 {
		return i
	}
	return len(needed)
}

func encodeOption(o Option) []byte { return appendOption(nil, o.Code, o.Value) }

// appendOption appends an option, in parts if it is longer than 255 bytes (RFC 3396).
func appendOption(dst []byte, code uint8, value []byte) []byte {
	for {
		n := min(len(value), 255)
		dst = append(dst, code, byte(n))
		dst = append(dst, value[:n]...)
		if value = value[n:]; len(value) == 0 {
			return dst
		}
	}
}

// encodedLen is what a value of n bytes takes with its codes and lengths.
func encodedLen(n int) int { return n + 2*max(1, (n+254)/255) }

// Reply is what to tell a client. Times are in seconds.
type Reply struct {
	Type       MessageType
	CIAddr     netip.Addr
	YIAddr     netip.Addr
	ServerID   netip.Addr
	LeaseTime  uint32 // 0: no lease times (INFORM, NAK)
	RenewTime  uint32
	RebindTime uint32
	Options    *OptionSet // nil: none (NAK)
	Message    string     // option 56, for a NAK
	Broadcast  bool       // set the broadcast flag whatever the client said

	RapidCommit bool // option 80: this ACK answers a DISCOVER (RFC 4039)
}

// MaxReplyLen is the most bytes that Append may write: a buffer with so much
// free capacity is never grown.
const MaxReplyLen = maxMaxSize - ipUDPHeader

// Append appends the reply to the request p to dst. The options come in this
// order: 53, 54, 51, 58, 59, 80, 1, 56, 61, then those of the set, and option 82
// of the request, byte for byte, last. 53, 54, 51, 58, 59 and 1 are always sent
// (most clients do not ask for 58 and 59, but follow them: T1 and T2 are the
// operator's, not the client's). Of the set a client with a parameter request list gets what
// it names, in its order (RFC 2132 section 9.8), one without gets all, by need. 61
// is returned as RFC 6842 says. Where the client's maximum (option 57) leaves no
// room, the fields file and sname are used too (option 52), unless they have
// their own meaning; what still does not fit, given what goes before it, is left
// out. Option 82 is never that, and never in those fields.
func (r *Reply) Append(dst []byte, p *Packet) []byte {
	base := len(dst)
	limit := p.MaxPayload()
	dst = r.appendHeader(dst, p)

	relay := p.RelayInfo()
	room := limit - 1 // End
	if p.RelayInfoCount() > 0 {
		room -= 2 + len(relay)
	}

	dst = append(dst, OptMessageType, 1, byte(r.Type))
	if r.ServerID.Is4() {
		dst = appendAddrOption(dst, OptServerID, r.ServerID)
	}
	if r.LeaseTime != 0 {
		dst = appendUint32Option(dst, OptLeaseTime, r.LeaseTime)
		dst = appendUint32Option(dst, OptRenewalTime, r.RenewTime)
		dst = appendUint32Option(dst, OptRebindingTime, r.RebindTime)
	}
	if r.RapidCommit {
		dst = append(dst, OptRapidCommit, 0)
	}
	if r.Options != nil {
		dst = append(dst, r.Options.mask...)
	}
	if n := len(r.Message); n > 0 && n < 256 && len(dst)-base+2+n <= room {
		dst = append(dst, OptMessage, byte(n))
		dst = append(dst, r.Message...)
	}
	if id := p.ClientID(); id != nil && len(dst)-base+encodedLen(len(id)) <= room {
		dst = appendOption(dst, OptClientID, id)
	}
	if r.Options != nil {
		w := writer{dst: dst, base: base, room: room, set: r.Options, p: p}
		w.options()
		dst = w.dst
	}
	if p.RelayInfoCount() > 0 {
		dst = append(dst, OptRelayAgentInfo, byte(len(relay)))
		dst = append(dst, relay...)
	}
	dst = append(dst, OptEnd)
	for len(dst)-base < MinReplyLen {
		dst = append(dst, OptPad)
	}
	return dst
}

// writer places the options of a set: into the options field, and in a second
// round, if that is too small, into the fields that overload gives.
type writer struct {
	dst        []byte
	base, room int // begin of the message in dst; bytes of it up to where option 82 goes
	set        *OptionSet
	p          *Packet

	full  bool
	sent  [4]uint64 // codes
	over  byte      // as the value of option 52: fields that may be used, and
	used  byte      // those that are
	file  int       // bytes of file that are used
	sname int       // and of sname
}

func (w *writer) options() {
	mark, over := len(w.dst), byte(0)
	w.round()
	if w.set.boot.File == "" {
		over = 1
	}
	if w.set.boot.ServerName == "" {
		over |= 2
	}
	if !w.full || over == 0 || mark-w.base+3 > w.room {
		return
	}
	w.dst, w.sent, w.over = append(w.dst[:mark], OptOverload, 1, 0), [4]uint64{}, over
	w.round()
	if w.dst[mark+2] = w.used; w.used == 0 { // what is left fits nowhere
		w.dst, w.sent, w.over = w.dst[:mark], [4]uint64{}, 0
		w.round()
	}
}

func (w *writer) round() {
	list := w.p.ParameterList()
	if list == nil {
		for i := range w.set.options {
			if o := &w.set.options[i]; !onlyAsked(o.code) {
				w.place(o)
			}
		}
		return
	}
	for _, code := range list {
		if i := w.set.index[code]; i != 0 {
			w.code(code, int(i-1))
		}
	}
	if !w.set.always {
		return
	}
	for i := range w.set.options {
		if o := &w.set.options[i]; o.always {
			w.code(o.code, i)
		}
	}
}

// code places all with a code, of which the first is at i, once.
func (w *writer) code(code uint8, i int) {
	if bit := uint64(1) << (code & 63); w.sent[code>>6]&bit == 0 {
		w.sent[code>>6] |= bit
		for ; i < len(w.set.options) && w.set.options[i].code == code; i++ {
			w.place(&w.set.options[i])
		}
	}
}

func (w *writer) place(o *encodedOption) {
	if o.code == OptVendorIdentifying {
		if named, some := w.p.FromEnterprise(o.enterprise); some && !named {
			return
		}
	}
	n := len(o.bytes)
	switch { // each field ends with End (RFC 2131 section 4.1)
	case len(w.dst)-w.base+n <= w.room:
		w.dst = append(w.dst, o.bytes...)
	case w.over&1 != 0 && w.file+n < fileLen:
		w.file += copy(w.dst[w.base+fileAt+w.file:], o.bytes)
		w.dst[w.base+fileAt+w.file] = OptEnd
		w.used |= 1
	case w.over&2 != 0 && w.sname+n < snameLen:
		w.sname += copy(w.dst[w.base+snameAt+w.sname:], o.bytes)
		w.dst[w.base+snameAt+w.sname] = OptEnd
		w.used |= 2
	default:
		w.full = true
	}
}

func (r *Reply) appendHeader(dst []byte, p *Packet) []byte {
	var h [optionsAt]byte
	h[0] = 2
	h[1], h[2] = p.raw[1], p.raw[2]
	copy(h[4:8], p.raw[4:8])     // xid
	copy(h[10:12], p.raw[10:12]) // flags
	if r.Broadcast {
		h[10] |= 0x80
	}
	putAddr(h[12:], r.CIAddr)
	putAddr(h[16:], r.YIAddr)
	copy(h[24:28], p.raw[24:28]) // giaddr
	copy(h[28:44], p.raw[28:44]) // chaddr
	if r.Options != nil {
		putAddr(h[20:], r.Options.boot.NextServer)
		copy(h[snameAt:], r.Options.boot.ServerName)
		copy(h[fileAt:], r.Options.boot.File)
	}
	binary.BigEndian.PutUint32(h[headerLen:], cookie)
	return append(dst, h[:]...)
}

func putAddr(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b, v[:])
	}
}

func appendAddrOption(dst []byte, code byte, a netip.Addr) []byte {
	v := a.As4()
	return append(dst, code, 4, v[0], v[1], v[2], v[3])
}

func appendUint32Option(dst []byte, code byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, code, 4), v)
}

// Query is a request to build: what Server.Explain asks with.
type Query struct {
	Type     MessageType
	XID      uint32
	MAC      [6]byte
	CIAddr   netip.Addr
	GIAddr   netip.Addr
	Options  []Option
	Option82 []byte // payload; nil: none
}

// Append appends the request to dst, with option 82 last.
func (q *Query) Append(dst []byte) []byte {
	var h [optionsAt]byte
	h[0], h[1], h[2] = 1, 1, 6
	binary.BigEndian.PutUint32(h[4:], q.XID)
	putAddr(h[12:], q.CIAddr)
	putAddr(h[24:], q.GIAddr)
	copy(h[28:], q.MAC[:])
	binary.BigEndian.PutUint32(h[headerLen:], cookie)
	dst = append(dst, h[:]...)
	dst = append(dst, OptMessageType, 1, byte(q.Type))
	for _, o := range q.Options {
		dst = appendOption(dst, o.Code, o.Value)
	}
	if q.Option82 != nil {
		dst = append(dst, OptRelayAgentInfo, byte(len(q.Option82)))
		dst = append(dst, q.Option82...)
	}
	return append(dst, OptEnd)
}
