package userside

import "bytes"

// keyedRows tells keys that are ids from those that count: PHP prints a list that
// lost a member as an object with the keys 0, 1... Nothing in the ERP has the id 0,
// and of a row that has an id of its own the key is the same.
type keyedRows struct {
	counts bool
	rows   []int // that have no id but their key
}

// id returns that of a row: its own, else its key. row is its place among the rows.
func (k *keyedRows) id(own int64, key []byte, row int) int64 {
	if !isDecimal(key) {
		return own
	}
	id, _ := parseInt(key)
	switch {
	case bytes.Equal(key, []byte("0")), own != 0 && own != id:
		k.counts = true
	case own == 0:
		k.rows = append(k.rows, row)
		return id
	}
	return own
}

// counted returns the rows, ascending, whose id is only a count.
func (k *keyedRows) counted() []int {
	if !k.counts {
		return nil
	}
	return k.rows
}
