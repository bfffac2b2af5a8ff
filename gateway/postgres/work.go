package postgres

// A few bytes can name much: in SELECT v, v, … FROM t, t, … each name may be
// of each table, and SELECT *, * FROM (SELECT *, * FROM …) doubles with each
// level. So what is looked for and kept is counted, and a text for which that
// is out of all proportion is refused.
const (
	workBase = 1 << 16 // for any text
	workByte = 16      // for each byte of it
	maxWork  = 1 << 20
)

// work is how much may still be done for one text. A unit is some 50 ns, and
// 50 bytes.
type work struct{ left int }

func workFor(text string) *work { return &work{min(workBase+workByte*len(text), maxWork)} }

// spend takes so many units, and reports whether they were there.
func (w *work) spend(units int) bool {
	if units > w.left {
		w.left = -1
		return false
	}
	w.left -= units
	return true
}

// done reports whether more was asked for than there was.
func (w *work) done() bool { return w.left < 0 }
