package syncer

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/provision"
)

// The file of a Store, version 3: lines of fields parted by tabs, so that people
// can read it with their usual tools. Empty field: not known. Lines b and n that agree in all
// but the address are one Line. An n that names no place is a customer's subnet, which is on no line; one that
// does is made by nothing yet. An usher of version 3 that knows no customers' subnets reads both as lines without clients.
//
//	usher snapshot 3
//	f  time of the fetch (RFC 3339)  source, of a stored one that is stored again the first; after a comma devices-unread
//	   where the list of switches was never read (an usher that does not know that takes the source for an unknown one)
//	d  device id  MAC  management address  quoted name  quoted model (not in version 1)
//	s  subscriber id  state
//	b  subscriber id  IP  MAC  device id  port  VLAN  quoted port name
//	n  subscriber id  subnet  MAC  device id  port  VLAN  quoted port name (routed to the line)
//	a  subscriber id  MAC  device id  port  VLAN  quoted port name (without an address; not before version 3)
//	e  number of the lines d, s, b, n and a  CRC-32C of all bytes before this line, hexadecimal
//
// In every version the first line tells it and the last one has the checksum: a
// file of a newer one is told from a damaged one by that.
const (
	storeMagic   = "usher snapshot "
	storeVersion = 3
	maxStoreLine = 1 << 16
	storeUnread  = ",devices-unread"
)

// formatError says what is wrong with the content of a stored snapshot.
type formatError struct {
	line   int // from 1
	reason string
}

// Error returns the line and the reason.
func (e *formatError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// newerError says that a stored snapshot is whole and of a version that is not known yet.
type newerError struct{ Version, Known int }

// Error returns both versions.
func (e *newerError) Error() string {
	return fmt.Sprintf("version %d was written by a newer usher; this one reads up to %d", e.Version, e.Known)
}

// encode writes a snapshot; nothing is held in memory but what is on one port.
func encode(w io.Writer, s *provision.Snapshot) error {
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	out := io.MultiWriter(w, sum)
	var err error
	b := make([]byte, 0, 256)
	records := 0
	flush := func() {
		if len(b) >= maxStoreLine && err == nil {
			err = fmt.Errorf("a line of %d bytes is too long to be stored", len(b))
		}
		if err == nil {
			_, err = out.Write(append(b, '\n'))
		}
		b = b[:0]
	}
	num := func(v int64) { b = strconv.AppendInt(append(b, '\t'), v, 10) }
	text := func(v string) {
		b = append(b, '\t')
		if v != "" {
			b = strconv.AppendQuote(b, v)
		}
	}
	addr := func(a netip.Addr) {
		b = append(b, '\t')
		if a.IsValid() {
			b = a.AppendTo(b)
		}
	}
	mac := func(m provision.MAC) {
		b = append(b, '\t')
		if !m.IsZero() {
			b = m.AppendTo(b)
		}
	}
	b = fmt.Appendf(b, "%s%d", storeMagic, storeVersion)
	flush()
	b = fmt.Appendf(b, "f\t%s\t%s", s.FetchedAt().UTC().Format(time.RFC3339Nano), cmp.Or(s.Origin(), s.Source()))
	if s.DevicesUnread() {
		b = append(b, storeUnread...)
	}
	flush()
	for i := range s.Devices() {
		d := &s.Devices()[i]
		b = append(b, 'd')
		num(int64(d.ID))
		mac(d.MAC)
		addr(d.IP)
		text(d.Name)
		text(d.Model)
		records++
		flush()
	}
	for _, sub := range s.Subscribers() {
		b = append(b, 's')
		num(int64(sub.ID))
		b = append(append(b, '\t'), sub.State.String()...)
		records++
		flush()
	}
	row := func(kind byte, l *provision.Line, address func()) {
		b = append(b, kind)
		num(int64(l.Subscriber))
		address()
		mac(l.MAC)
		num(int64(l.Device))
		num(int64(l.Port))
		num(int64(l.VLAN))
		text(l.PortName)
		records++
		flush()
	}
	host := func(ip netip.Addr, l *provision.Line) { row('b', l, func() { addr(ip) }) }
	subnet := func(p netip.Prefix, l *provision.Line) { row('n', l, func() { b = p.AppendTo(append(b, '\t')) }) }
	for ip, l := range s.PortHosts() {
		host(ip, l)
	}
	for p, l := range s.Subnets() {
		subnet(p, l)
	}
	for _, n := range s.SubnetClaims() {
		subnet(n.Prefix, &provision.Line{Subscriber: n.Subscriber})
	}
	for i := range s.Contested() {
		l := &s.Contested()[i]
		if a := l.Addresses[0]; a.Kind == provision.Routed4 {
			subnet(a.Prefix, l)
		} else {
			host(a.Prefix.Addr(), l)
		}
	}
	for l := range s.LinesBySubscriber().All() {
		if !l.Owner.IsZero() {
			row('a', l, func() {})
		}
	}
	crc := sum.Sum32()
	b = fmt.Appendf(b, "e\t%d\t%08x", records, crc)
	flush()
	return err
}

// decode reads what encode wrote. An error of the content is a *formatError; any
// other is the reader's, or a *newerError.
func decode(r io.Reader) (*provision.Snapshot, error) {
	d := decoder{table: crc32.MakeTable(crc32.Castagnoli), names: make(map[string]string)}
	br := bufio.NewReaderSize(r, maxStoreLine)
	for {
		line, err := br.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		d.line++
		switch {
		case err == io.EOF:
			return nil, d.fail("the file is cut off within this line")
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, d.fail("line is longer than %d bytes", maxStoreLine)
		case err != nil:
			return nil, fmt.Errorf("read after line %d: %w", d.line, err)
		}
		if err := d.read(line); err != nil {
			return nil, err
		}
	}
	if d.newer() != nil { // no closing line
		return nil, &formatError{1, d.newer().Error()}
	}
	if !d.ended {
		d.line++
		return nil, d.fail("the file is cut off: no closing line")
	}
	return d.content.Snapshot(), nil
}

type decoder struct {
	table   *crc32.Table
	sum     uint32
	line    int
	records int
	version int
	ended   bool
	names   map[string]string
	content provision.Stored
}

func (d *decoder) fail(format string, args ...any) error {
	return &formatError{d.line, fmt.Sprintf(format, args...)}
}

// read takes one line, with its newline.
func (d *decoder) read(raw []byte) error {
	if d.ended {
		return d.fail("text after the closing line")
	}
	line := string(bytes.TrimSuffix(raw, []byte("\n")))
	if d.line == 1 {
		if err := d.header(line); err != nil {
			return err
		}
	} else {
		kind, rest, _ := strings.Cut(line, "\t")
		if kind == "e" {
			return d.end(rest)
		}
		if d.newer() == nil {
			if err := d.record(kind, rest); err != nil {
				return d.fail("%v", err)
			}
		}
	}
	d.sum = crc32.Update(d.sum, d.table, raw)
	return nil
}

func (d *decoder) header(line string) error {
	version, ok := strings.CutPrefix(line, storeMagic)
	if !ok {
		return d.fail("not a stored snapshot of usher")
	}
	v, err := strconv.Atoi(version)
	if err != nil || v < 1 {
		return d.fail("version %q is not a number", version)
	}
	d.version = v
	return nil
}

// newer returns nil for a version that is known.
func (d *decoder) newer() *newerError {
	if d.version <= storeVersion {
		return nil
	}
	return &newerError{d.version, storeVersion}
}

// olderVersion returns the version of a stored snapshot that is older than the
// one that encode writes; false for others and for what is none.
func olderVersion(r io.Reader) (int, bool) {
	line, err := bufio.NewReader(io.LimitReader(r, 64)).ReadString('\n')
	d := decoder{line: 1}
	if err != nil || d.header(strings.TrimSuffix(line, "\n")) != nil {
		return 0, false
	}
	return d.version, d.version < storeVersion
}

func (d *decoder) end(rest string) error {
	f := fields{rest: rest}
	records := f.num("number of records", 0, 1<<40)
	sum := f.next("checksum")
	if newer := d.newer(); newer != nil {
		if want := fmt.Sprintf("%08x", d.sum); sum != want {
			return &formatError{1, newer.Error()}
		}
		return newer
	}
	if err := f.done(); err != nil {
		return d.fail("%v", err)
	}
	if records != int64(d.records) {
		return d.fail("%d records, the closing line says %d", d.records, records)
	}
	if want := fmt.Sprintf("%08x", d.sum); sum != want {
		return d.fail("checksum is %s, the content has %s: the file is damaged", sum, want)
	}
	d.ended = true
	return nil
}

func (d *decoder) record(kind, rest string) error {
	f := fields{rest: rest, names: d.names}
	d.records++
	switch kind {
	case "f":
		d.records--
		at, err := time.Parse(time.RFC3339Nano, f.next("time"))
		if err != nil {
			return fmt.Errorf("time of the fetch: %w", err)
		}
		d.content.FetchedAt = at
		source, unread := strings.CutSuffix(f.next("source"), storeUnread)
		d.content.Origin, d.content.DevicesUnread = provision.Source(source), unread
	case "d":
		v := provision.Device{ID: provision.DeviceID(f.num("device id", 1, 1<<63-1)), MAC: f.mac(), IP: f.addr(), Name: f.text("name")}
		if d.version > 1 {
			v.Model = f.text("model")
		}
		d.content.Devices = append(d.content.Devices, v)
	case "s":
		id := provision.SubscriberID(f.num("subscriber id", 1, 1<<63-1))
		var state provision.State
		if err := state.UnmarshalText([]byte(f.next("state"))); err != nil && f.err == nil {
			return err
		}
		d.content.Subscribers = append(d.content.Subscribers, provision.Subscriber{ID: id, State: state})
	case "b", "n", "a":
		l := provision.Line{Subscriber: provision.SubscriberID(f.num("subscriber id", 1, 1<<63-1))}
		var a provision.Address
		switch kind {
		case "b":
			a = provision.Address{Kind: provision.Host4, Prefix: netip.PrefixFrom(f.addr(), 32)}
		case "n":
			a = provision.Address{Kind: provision.Routed4, Prefix: f.prefix()}
		}
		l.MAC, l.Device = f.mac(), provision.DeviceID(f.num("device id", 0, 1<<63-1))
		l.Port, l.VLAN, l.PortName = uint32(f.num("port", 0, 1<<32-1)), uint16(f.num("vlan", 0, 1<<16-1)), f.text("port name")
		switch {
		case f.err != nil:
		case kind != "a" && !a.Prefix.Addr().Is4():
			return errors.New("binding without an IPv4 address")
		case kind == "a" && l.MAC.IsZero() && !l.HasPort() && l.VLAN == 0:
			return errors.New("row without an address names no port, MAC or VLAN")
		}
		switch {
		case f.err != nil:
		case kind == "n" && l.MAC.IsZero() && !l.HasPort() && l.VLAN == 0 && a.Prefix.Bits() >= provision.MinSubnetBits:
			d.content.AddSubnet(provision.Subnet{Prefix: a.Prefix, Subscriber: l.Subscriber})
		default:
			d.content.Add(&l, a)
		}
	default:
		return fmt.Errorf("unknown kind of line %q", clip(kind))
	}
	return f.done()
}

// fields takes a line apart and remembers the first error.
type fields struct {
	rest  string
	none  bool // no field is left
	err   error
	names map[string]string // one copy of each text
}

func (f *fields) next(what string) string {
	if f.none {
		f.failf("%s is missing", what)
		return ""
	}
	v, rest, more := strings.Cut(f.rest, "\t")
	f.rest, f.none = rest, !more
	return v
}

func (f *fields) failf(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *fields) done() error {
	if !f.none {
		f.failf("text after the last field: %q", clip(f.rest))
	}
	return f.err
}

func (f *fields) num(what string, lo, hi int64) int64 {
	text := f.next(what)
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < lo || v > hi {
		f.failf("%s %q is not a number from %d to %d", what, clip(text), lo, hi)
		return lo
	}
	return v
}

func (f *fields) addr() netip.Addr {
	text := f.next("address")
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		f.failf("address %q cannot be read", clip(text))
		return netip.Addr{}
	}
	return a.Unmap()
}

func (f *fields) prefix() netip.Prefix {
	text := f.next("subnet")
	p, err := netip.ParsePrefix(text)
	if err != nil || p != p.Masked() {
		f.failf("subnet %q cannot be read", clip(text))
	}
	return p
}

func (f *fields) mac() provision.MAC {
	m, err := provision.ParseMAC(f.next("mac"))
	if err != nil {
		f.failf("%v", err)
	}
	return m
}

func (f *fields) text(what string) string {
	quoted := f.next(what)
	if quoted == "" {
		return ""
	}
	if v, ok := f.names[quoted]; ok {
		return v
	}
	v, err := strconv.Unquote(quoted)
	if err != nil {
		f.failf("%s %s is not a quoted text", what, clip(quoted))
		return ""
	}
	f.names[strings.Clone(quoted)] = v
	return v
}

// clip shortens text for an error.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
