package emulator

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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
			case ed.deleted != nil:
				err = deleteCustomerKeys(tx, ed.deleted.ID)
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
	keys := historyKeys(b, id)
	for len(keys) > maxHistory {
		if err := b.Delete(keys[0]); err != nil {
			return err
		}
		keys = keys[1:]
	}
	return nil
}

// historyKeys returns the keys of a customer's records, oldest first.
func historyKeys(b *bbolt.Bucket, id int64) [][]byte {
	var keys [][]byte
	prefix := idKey(id)
	cur := b.Cursor()
	for k, _ := cur.Seek(prefix); len(k) == 16 && string(k[:8]) == string(prefix); k, _ = cur.Next() {
		keys = append(keys, slices.Clone(k))
	}
	return keys
}

// deleteCustomerKeys removes a customer with the history.
func deleteCustomerKeys(tx *bbolt.Tx, id int64) error {
	if err := tx.Bucket(bucketCustomers).Delete(idKey(id)); err != nil {
		return err
	}
	b := tx.Bucket(bucketHistory)
	for _, k := range historyKeys(b, id) {
		if err := b.Delete(k); err != nil {
			return err
		}
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
