package emulator

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/errgroup"
)

// Buckets of the file. Keys are big-endian numbers, so that the order of the
// file is the order of the model; values are JSON of the stored... types.
var (
	bucketMeta      = []byte("meta")
	bucketCustomers = []byte("customers") // customer id
	bucketDevices   = []byte("devices")   // device id
	bucketVLANs     = []byte("vlans")     // sequence
	bucketHistory   = []byte("history")   // customer id, sequence: one MAC record each
)

// storeFormat is under the key "format" of the bucket meta, written in the
// transaction that fills the file: its presence means that the file is whole.
const storeFormat = "usher-emulator-1"

var formatKey = []byte("format")

// dataset is everything that is persistent. Lists are in the order of their ids.
type dataset struct {
	customers []*Customer
	devices   []*Device
	vlans     []VLAN
	history   map[int64][]MACRecord
}

// store is the file. A nil store keeps nothing and always succeeds.
type store struct{ db *bbolt.DB }

func openStore(path string) (*store, error) {
	// Address space for 100,000 customers from the start: to grow the mapping
	// within a transaction costs a copy of all that it has touched.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, InitialMmapSize: 128 << 20})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open data file %s: another process has it open", path)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open data file: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open data file %s: %w", path, err)
	}
	return &store{db}, nil
}

func (s *store) close() error {
	if s == nil {
		return nil
	}
	return s.db.Close()
}

// load reads everything. found is false when the file has not been filled yet.
func (s *store) load() (d *dataset, found bool, err error) {
	if s == nil {
		return nil, false, nil
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil
		}
		if got := string(meta.Get(formatKey)); got != storeFormat {
			return fmt.Errorf("data file %s: format %q, want %q", s.db.Path(), got, storeFormat)
		}
		found = true
		d, err = loadAll(tx)
		if err != nil {
			return fmt.Errorf("data file %s: %w", s.db.Path(), err)
		}
		return nil
	})
	return d, found, err
}

func loadAll(tx *bbolt.Tx) (*dataset, error) {
	d := &dataset{history: map[int64][]MACRecord{}}
	customers, err := loadBucket(tx, bucketCustomers, func(v *storedCustomer) *Customer { return v.customer() })
	if err != nil {
		return nil, err
	}
	d.customers = customers
	if d.devices, err = loadBucket(tx, bucketDevices, func(v *storedDevice) *Device { return v.device() }); err != nil {
		return nil, err
	}
	if d.vlans, err = loadBucket(tx, bucketVLANs, func(v *VLAN) VLAN { return *v }); err != nil {
		return nil, err
	}
	b := tx.Bucket(bucketHistory)
	if b == nil {
		return nil, fmt.Errorf("bucket %s is missing", bucketHistory)
	}
	err = b.ForEach(func(k, v []byte) error {
		var rec storedRecord
		if len(k) != 16 {
			return fmt.Errorf("history: key of %d bytes, want 16", len(k))
		}
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("history %x: %w", k, err)
		}
		id := int64(binary.BigEndian.Uint64(k))
		d.history[id] = trimHistory(append(d.history[id], rec.record()))
		return nil
	})
	return d, err
}

// loadBucket decodes all values of a bucket, in parallel, in the order of their keys.
func loadBucket[S, T any](tx *bbolt.Tx, name []byte, convert func(*S) T) ([]T, error) {
	b := tx.Bucket(name)
	if b == nil {
		return nil, fmt.Errorf("bucket %s is missing", name)
	}
	type pair struct{ k, v []byte } // of the mapped file, valid during the transaction
	var pairs []pair
	if err := b.ForEach(func(k, v []byte) error {
		pairs = append(pairs, pair{k, v})
		return nil
	}); err != nil {
		return nil, err
	}
	out := make([]T, len(pairs))
	const chunk = 4096
	var g errgroup.Group
	g.SetLimit(4)
	for start := 0; start < len(pairs); start += chunk {
		g.Go(func() error {
			for i := start; i < min(start+chunk, len(pairs)); i++ {
				var v S
				if err := json.Unmarshal(pairs[i].v, &v); err != nil {
					return fmt.Errorf("%s %x: %w", name, pairs[i].k, err)
				}
				out[i] = convert(&v)
			}
			return nil
		})
	}
	return out, g.Wait()
}

// fill writes a whole data set into an empty file, in one transaction: a file
// whose filling was cut short is filled again at the next start.
func (s *store) fill(d *dataset) error {
	if s == nil {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketCustomers, bucketDevices, bucketVLANs, bucketHistory} {
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			b.FillPercent = 0.9 // the keys come in order
		}
		for _, c := range d.customers {
			if err := putJSON(tx, bucketCustomers, idKey(c.ID), storeCustomer(c)); err != nil {
				return err
			}
		}
		for _, dev := range d.devices {
			if err := putJSON(tx, bucketDevices, idKey(dev.ID), storeDevice(dev)); err != nil {
				return err
			}
		}
		for i, v := range d.vlans {
			if err := putVLAN(tx, v); err != nil {
				return fmt.Errorf("vlan %d: %w", i, err)
			}
		}
		for _, c := range d.customers {
			if err := putHistory(tx, c.ID, d.history[c.ID]); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(formatKey, []byte(storeFormat))
	})
	if err != nil {
		return fmt.Errorf("fill data file %s: %w", s.db.Path(), err)
	}
	return nil
}

// put stores edits in one durable transaction.
func (s *store) put(edits []edit) error {
	if s == nil {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, ed := range edits {
			var err error
			switch {
			case ed.device != nil:
				err = putJSON(tx, bucketDevices, idKey(ed.device.ID), storeDevice(ed.device))
			case ed.vlan != nil:
				err = putVLAN(tx, *ed.vlan)
			default:
				err = cmp.Or(
					putJSON(tx, bucketCustomers, idKey(ed.customer.ID), storeCustomer(ed.customer)),
					putHistory(tx, ed.customer.ID, ed.history))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write data file %s: %w", s.db.Path(), err)
	}
	return nil
}

func putVLAN(tx *bbolt.Tx, v VLAN) error {
	b := tx.Bucket(bucketVLANs)
	seq, err := b.NextSequence()
	if err != nil {
		return err
	}
	return putJSON(tx, bucketVLANs, idKey(int64(seq)), v)
}

// putHistory appends records, and removes the oldest beyond maxHistory.
func putHistory(tx *bbolt.Tx, id int64, recs []MACRecord) error {
	if len(recs) == 0 {
		return nil
	}
	b := tx.Bucket(bucketHistory)
	for _, rec := range recs {
		seq, err := b.NextSequence()
		if err != nil {
			return err
		}
		key := append(idKey(id), idKey(int64(seq))...)
		if err := putJSON(tx, bucketHistory, key, storeRecord(rec)); err != nil {
			return err
		}
	}
	var keys [][]byte
	prefix := idKey(id)
	cur := b.Cursor()
	for k, _ := cur.Seek(prefix); len(k) == 16 && string(k[:8]) == string(prefix); k, _ = cur.Next() {
		keys = append(keys, slices.Clone(k))
	}
	for len(keys) > maxHistory {
		if err := b.Delete(keys[0]); err != nil {
			return err
		}
		keys = keys[1:]
	}
	return nil
}

func putJSON(tx *bbolt.Tx, bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s %x: %w", bucket, key, err)
	}
	return tx.Bucket(bucket).Put(key, b)
}

func idKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// storedCustomer is Customer in the file. Names are short and addresses are
// numbers, for the start with 100,000 of them is waited for.
type storedCustomer struct {
	ID         int64           `json:"id"`
	Login      string          `json:"lg,omitempty"`
	FullName   string          `json:"nm,omitempty"`
	Account    string          `json:"ac,omitempty"`
	Agreement  string          `json:"ag,omitempty"`
	AgreeDate  int64           `json:"ad,omitempty"` // Unix seconds, like all times here
	State      int             `json:"st"`
	Balance    int64           `json:"ba,omitempty"`
	Flags      uint8           `json:"fl,omitempty"` // see customerFlags
	Billing    int64           `json:"bi,omitempty"`
	BillingUID string          `json:"bu,omitempty"`
	Group      int64           `json:"gr,omitempty"`
	Tariff     string          `json:"ta,omitempty"`
	Manager    int64           `json:"ma,omitempty"`
	Phones     []string        `json:"ph,omitempty"`
	Emails     []string        `json:"em,omitempty"`
	Marks      []int64         `json:"mk,omitempty"`
	House      int64           `json:"ho,omitempty"`
	Apartment  string          `json:"ap,omitempty"`
	Entrance   int             `json:"en,omitempty"`
	Floor      int             `json:"fo,omitempty"`
	Created    int64           `json:"cr,omitempty"`
	Connected  int64           `json:"co,omitempty"`
	Active     int64           `json:"av,omitempty"`
	Comment    string          `json:"cm,omitempty"`
	Addresses  []storedAddress `json:"ip,omitempty"`
	Links      []storedLink    `json:"ln,omitempty"`
}

type storedAddress struct {
	IP  uint32 `json:"i,omitempty"`
	MAC uint64 `json:"m,omitempty"`
	Net string `json:"n,omitempty"`
}

type storedLink struct {
	Device int64  `json:"d"`
	Port   uint32 `json:"p"`
	Cross  int64  `json:"c,omitempty"`
}

type storedRecord struct {
	At  int64  `json:"t"`
	IP  uint32 `json:"i,omitempty"`
	MAC uint64 `json:"m"`
}

// customerFlags are the bits of storedCustomer.Flags, by position.
func customerFlags(c *Customer) []*bool {
	return []*bool{&c.Corporate, &c.Potential, &c.Disabled, &c.Former, &c.NotInBilling}
}

func storeCustomer(c *Customer) *storedCustomer {
	s := &storedCustomer{
		ID: c.ID, Login: c.Login, FullName: c.FullName, Account: c.AccountNumber,
		Agreement: c.AgreementNumber, AgreeDate: unix(c.AgreementDate), State: int(c.State), Balance: c.BalanceCents,
		Billing: c.Billing, BillingUID: c.BillingUID, Group: c.Group, Tariff: c.Tariff, Manager: c.Manager,
		Phones: c.Phones, Emails: c.Emails, Marks: c.Marks, House: c.House, Apartment: c.Apartment,
		Entrance: c.Entrance, Floor: c.Floor, Created: unix(c.Created), Connected: unix(c.Connected),
		Active: unix(c.Active), Comment: c.Comment,
	}
	for i, f := range customerFlags(c) {
		if *f {
			s.Flags |= 1 << i
		}
	}
	for _, a := range c.Addresses {
		sa := storedAddress{IP: ipNumber(a.IP), MAC: macNumber(a.MAC)}
		if a.Net.IsValid() {
			sa.Net = a.Net.String()
		}
		s.Addresses = append(s.Addresses, sa)
	}
	for _, l := range c.Links {
		s.Links = append(s.Links, storedLink(l))
	}
	return s
}

func (s *storedCustomer) customer() *Customer {
	c := &Customer{
		ID: s.ID, Login: s.Login, FullName: s.FullName, AccountNumber: s.Account,
		AgreementNumber: s.Agreement, AgreementDate: fromUnix(s.AgreeDate), State: State(s.State), BalanceCents: s.Balance,
		Billing: s.Billing, BillingUID: s.BillingUID, Group: s.Group, Tariff: s.Tariff, Manager: s.Manager,
		Phones: s.Phones, Emails: s.Emails, Marks: s.Marks, House: s.House, Apartment: s.Apartment,
		Entrance: s.Entrance, Floor: s.Floor, Created: fromUnix(s.Created), Connected: fromUnix(s.Connected),
		Active: fromUnix(s.Active), Comment: s.Comment,
	}
	for i, f := range customerFlags(c) {
		*f = s.Flags&(1<<i) != 0
	}
	for _, a := range s.Addresses {
		ca := Address{IP: ipFrom(a.IP), MAC: macFrom(a.MAC)}
		if p, err := netip.ParsePrefix(a.Net); err == nil {
			ca.Net = p
		}
		c.Addresses = append(c.Addresses, ca)
	}
	for _, l := range s.Links {
		c.Links = append(c.Links, Link(l))
	}
	return c
}

// storedDevice is Device in the file.
type storedDevice struct {
	ID        int64        `json:"id"`
	Type      string       `json:"ty"`
	Name      string       `json:"nm,omitempty"`
	Model     string       `json:"mo,omitempty"`
	MAC       uint64       `json:"ma,omitempty"`
	IP        uint32       `json:"ip,omitempty"`
	VLAN      uint16       `json:"vl,omitempty"`
	Ports     []storedPort `json:"po,omitempty"`
	Uplinks   []uint32     `json:"up,omitempty"`
	Offline   bool         `json:"of,omitempty"`
	Node      int64        `json:"no,omitempty"`
	Entrance  int          `json:"en,omitempty"`
	Location  string       `json:"lo,omitempty"`
	Community string       `json:"cm,omitempty"`
	Login     string       `json:"lg,omitempty"`
	Password  string       `json:"pw,omitempty"`
}

type storedPort struct {
	Number uint32 `json:"n"`
	Index  uint32 `json:"i"`
	Name   string `json:"s"`
}

func storeDevice(d *Device) *storedDevice {
	s := &storedDevice{
		ID: d.ID, Type: d.Type, Name: d.Name, Model: d.Model, MAC: macNumber(d.MAC), IP: ipNumber(d.IP),
		VLAN: d.VLAN, Uplinks: d.Uplinks, Offline: d.Offline, Node: d.Node, Entrance: d.Entrance,
		Location: d.Location, Community: d.Community, Login: d.Login, Password: d.Password,
	}
	for _, p := range d.Ports {
		s.Ports = append(s.Ports, storedPort(p))
	}
	return s
}

func (s *storedDevice) device() *Device {
	d := &Device{
		ID: s.ID, Type: s.Type, Name: s.Name, Model: s.Model, MAC: macFrom(s.MAC), IP: ipFrom(s.IP),
		VLAN: s.VLAN, Uplinks: s.Uplinks, Offline: s.Offline, Node: s.Node, Entrance: s.Entrance,
		Location: s.Location, Community: s.Community, Login: s.Login, Password: s.Password,
	}
	for _, p := range s.Ports {
		d.Ports = append(d.Ports, Port(p))
	}
	return d
}

func storeRecord(r MACRecord) storedRecord {
	return storedRecord{At: unix(r.At), IP: ipNumber(r.IP), MAC: macNumber(r.MAC)}
}

func (s storedRecord) record() MACRecord {
	return MACRecord{At: fromUnix(s.At), IP: ipFrom(s.IP), MAC: macFrom(s.MAC)}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// ipNumber is inet_aton; 0 stands for no address, here and on the wire.
func ipNumber(ip netip.Addr) uint32 {
	if !ip.Is4() {
		return 0
	}
	b := ip.As4()
	return binary.BigEndian.Uint32(b[:])
}

func ipFrom(n uint32) netip.Addr {
	if n == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func macNumber(m MAC) uint64 {
	var b [8]byte
	copy(b[2:], m[:])
	return binary.BigEndian.Uint64(b[:])
}

func macFrom(n uint64) MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	return MAC(b[2:])
}
