//! A folder of labelled images: one sub-folder for each person, and the pairs that are judged one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::Failure;

/// Images of one folder. Ours: a million paths take some 200 MB.
const IMAGES_MAX: usize = 1_000_000;
/// Parts of the protocol.
const FOLDS: usize = 10;
/// Genuine pairs, and as many impostor pairs, of one drawn part. LFW: 300.
const PAIRS_PER_FOLD: usize = 300;

/// Who is on which image.
#[derive(Debug, Default)]
pub struct Labelled {
    /// Names, in order.
    pub people: Vec<String>,
    /// Images, those of one person side by side.
    pub images: Vec<PathBuf>,
    /// Of each person, where the images are.
    pub of: Vec<Range<usize>>,
    /// Of each image, the person.
    pub person: Vec<u32>,
}

/// Two images that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub fold: usize,
    pub a: usize,
    pub b: usize,
}

/// The pairs of the ten-fold protocol.
#[derive(Debug)]
pub struct Pairs {
    pub pairs: Vec<Pair>,
    /// Whether a file named them; otherwise they were drawn.
    pub from_file: bool,
    /// Pairs of the file whose images are not in the folder.
    pub missing: usize,
}

impl Labelled {
    /// Reads the names of a folder; the images are read when they are sent.
    pub fn read(folder: &Path) -> Result<Labelled, Failure> {
        let mut people: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut count = 0;
        for entry in list(folder)? {
            if !entry.is_dir() {
                continue;
            }
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
                return Err(format!("{}: the name is not Unicode", entry.display()).into());
            };
            let mut images: Vec<PathBuf> = list(&entry)?.into_iter().filter(|path| is_image(path)).collect();
            images.sort();
            count += images.len();
            if count > IMAGES_MAX {
                return Err(format!("{}: more than {IMAGES_MAX} images", folder.display()).into());
            }
            if !images.is_empty() {
                people.insert(name.to_owned(), images);
            }
        }
        let mut labelled = Labelled::default();
        for (person, (name, images)) in people.into_iter().enumerate() {
            let start = labelled.images.len();
            labelled.person.extend(images.iter().map(|_| person as u32));
            labelled.images.extend(images);
            labelled.of.push(start..labelled.images.len());
            labelled.people.push(name);
        }
        if labelled.images.is_empty() {
            let why = "no sub-folder has a JPEG or PNG image; a folder for each person is expected";
            return Err(format!("{}: {why}", folder.display()).into());
        }
        Ok(labelled)
    }

    /// The person of an image.
    pub fn person_of(&self, image: usize) -> Option<u32> {
        self.person.get(image).copied()
    }

    /// Genuine pairs, each seen from both of its images.
    pub fn genuine_views(&self) -> u64 {
        self.of
            .iter()
            .map(|range| range.len() as u64 * (range.len() as u64 - 1))
            .sum()
    }

    /// The pairs of a file in the format of LFW's `pairs.txt`: `NAME N M` is a genuine pair of the files `NAME_000N` and
    /// `NAME_000M`, `NAME N OTHER M` an impostor pair; the first line says how many parts there are.
    pub fn pairs_of(&self, text: &str) -> Result<Pairs, Failure> {
        let mut lines = text.lines().map(str::split_whitespace).map(Iterator::collect::<Vec<_>>);
        let folds = match lines.next().as_deref() {
            Some([folds, _]) => folds.parse::<usize>().ok().filter(|folds| (2..=100).contains(folds)),
            _ => None,
        };
        let folds = folds.ok_or("the first line of the pairs is not the number of parts and of their pairs")?;
        let lines: Vec<Vec<&str>> = lines.filter(|words| !words.is_empty()).collect();
        let stems: HashMap<&str, usize> = self
            .images
            .iter()
            .enumerate()
            .filter_map(|(index, path)| Some((path.file_stem()?.to_str()?, index)))
            .collect();
        let find = |name: &str, number: &str| -> Result<Option<usize>, Failure> {
            let number: u32 = number
                .parse()
                .map_err(|_| format!("{number:?} is not the number of an image"))?;
            Ok(stems.get(format!("{name}_{number:04}").as_str()).copied())
        };
        let mut pairs = Pairs {
            pairs: Vec::with_capacity(lines.len()),
            from_file: true,
            missing: 0,
        };
        let per_fold = lines.len().div_ceil(folds).max(1);
        for (index, words) in lines.iter().enumerate() {
            let (a, b) = match words.as_slice() {
                [name, a, b] => (find(name, a)?, find(name, b)?),
                [name, a, other, b] => (find(name, a)?, find(other, b)?),
                _ => return Err(format!("line {} of the pairs has not three or four words", index + 2).into()),
            };
            match (a, b) {
                (Some(a), Some(b)) if a != b => pairs.pairs.push(Pair {
                    fold: index / per_fold,
                    a,
                    b,
                }),
                _ => pairs.missing += 1,
            }
        }
        Ok(pairs)
    }

    /// Pairs drawn, always the same ones: no person is in two parts, and each part has as many impostor pairs as genuine
    /// ones. Fewer than ten parts, or none, where there are few people.
    pub fn draw(&self) -> Pairs {
        let several = |person: &usize| self.of.get(*person).is_some_and(|range| range.len() > 1);
        let (many, single): (Vec<usize>, Vec<usize>) = (0..self.of.len()).partition(several);
        let folds = FOLDS.min(many.len() / 2);
        let mut drawn = Pairs {
            pairs: Vec::new(),
            from_file: false,
            missing: 0,
        };
        let mut random = Random(0x5167_4c61_7373);
        for fold in 0..folds {
            let of_fold = |(place, person): (usize, &usize)| (place % folds == fold).then_some(*person);
            let known: Vec<usize> = many.iter().enumerate().filter_map(of_fold).collect();
            let all = single.iter().enumerate().filter_map(of_fold);
            let all: Vec<usize> = known.iter().copied().chain(all).collect();
            let genuine = self.draw_distinct(&mut random, PAIRS_PER_FOLD, |labelled, random| {
                let range = labelled.of.get(random.one(&known)?)?.clone();
                Some((random.within(&range), random.within(&range)))
            });
            let impostor = self.draw_distinct(&mut random, genuine.len(), |labelled, random| {
                let (a, b) = (random.one(&all)?, random.one(&all)?);
                (a != b).then_some(())?;
                let (a, b) = (labelled.of.get(a)?.clone(), labelled.of.get(b)?.clone());
                Some((random.within(&a), random.within(&b)))
            });
            let both = genuine.into_iter().chain(impostor);
            drawn.pairs.extend(both.map(|(a, b)| Pair { fold, a, b }));
        }
        drawn
    }

    /// Up to `most` different pairs; fewer where no more are found.
    fn draw_distinct(
        &self,
        random: &mut Random,
        most: usize,
        mut one: impl FnMut(&Self, &mut Random) -> Option<(usize, usize)>,
    ) -> Vec<(usize, usize)> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for _ in 0..most * 20 {
            if found.len() == most {
                break;
            }
            let Some((a, b)) = one(self, random).map(|(a, b)| (a.min(b), a.max(b))) else {
                continue;
            };
            if a != b && seen.insert((a, b)) {
                found.push((a, b));
            }
        }
        found
    }
}

/// SplitMix64: drawn pairs must be the same in every run and every version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one(&mut self, of: &[usize]) -> Option<usize> {
        of.get(self.below(of.len())).copied()
    }

    fn within(&mut self, range: &Range<usize>) -> usize {
        range.start + self.below(range.len())
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        found.push(entry.map_err(failed)?.path());
    }
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is = |wanted: &&str| extension.is_some_and(|found| found.eq_ignore_ascii_case(wanted));
    ["jpg", "jpeg", "png"].iter().any(is) && path.is_file()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "makes folders to read")]
mod tests {
    use super::*;

    fn folder(people: &[(&str, usize)]) -> (tempfile::TempDir, Labelled) {
        let folder = tempfile::tempdir().unwrap();
        for (name, images) in people {
            let own = folder.path().join(name);
            std::fs::create_dir(&own).unwrap();
            for number in 1..=*images {
                std::fs::write(own.join(format!("{name}_{number:04}.jpg")), b"").unwrap();
            }
            std::fs::write(own.join("notes.txt"), b"").unwrap();
        }
        std::fs::write(folder.path().join("pairs.txt"), b"").unwrap();
        let labelled = Labelled::read(folder.path()).unwrap();
        (folder, labelled)
    }

    #[test]
    fn a_folder_a_person_and_nothing_but_images() {
        let (_folder, labelled) = folder(&[("Bea", 3), ("Ann", 2), ("Nobody", 0)]);
        assert_eq!(labelled.people, ["Ann", "Bea"]);
        assert_eq!((labelled.images.len(), labelled.of.clone()), (5, vec![0..2, 2..5]));
        assert_eq!(labelled.person, [0, 0, 1, 1, 1]);
        assert_eq!(labelled.genuine_views(), 2 + 6);
        let empty = tempfile::tempdir().unwrap();
        assert!(
            Labelled::read(empty.path())
                .unwrap_err()
                .to_string()
                .contains("a folder for each person")
        );
        assert!(Labelled::read(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn pairs_are_read_as_lfw_writes_them() {
        let (_folder, labelled) = folder(&[("Ann", 2), ("Bea", 3)]);
        let pairs = labelled
            .pairs_of("2\t1\nAnn\t1\t2\nAnn\t1\tBea\t3\nBea 1 2\nBea 9 Ann 1\n")
            .unwrap();
        let pair = |fold, a, b| Pair { fold, a, b };
        assert_eq!(pairs.pairs, [pair(0, 0, 1), pair(0, 0, 4), pair(1, 2, 3)]);
        assert_eq!((pairs.missing, pairs.from_file), (1, true));
        for wrong in ["", "Ann 1 2\n", "2 1\nAnn 1\n", "2 1\nAnn one 2\n"] {
            assert!(labelled.pairs_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn drawn_pairs_are_the_same_each_time_and_share_no_person_between_parts() {
        let people: Vec<String> = (0..30).map(|n| format!("p{n:02}")).collect();
        let sizes: Vec<(&str, usize)> = people
            .iter()
            .enumerate()
            .map(|(n, p)| (p.as_str(), 1 + n % 4))
            .collect();
        let (_folder, labelled) = folder(&sizes);
        let drawn = labelled.draw();
        assert_eq!(drawn.pairs, labelled.draw().pairs);
        let mut fold_of: HashMap<u32, usize> = HashMap::new();
        let same = |pair: &Pair| labelled.person_of(pair.a) == labelled.person_of(pair.b);
        for pair in &drawn.pairs {
            for image in [pair.a, pair.b] {
                let person = labelled.person_of(image).unwrap();
                assert_eq!(*fold_of.entry(person).or_insert(pair.fold), pair.fold);
            }
        }
        let genuine = drawn.pairs.iter().filter(|pair| same(pair)).count();
        assert!(genuine >= 20 && drawn.pairs.len() <= 2 * genuine);
        assert_eq!(drawn.pairs.iter().map(|pair| pair.fold).max(), Some(9));
        let (_folder, two) = folder(&[("Ann", 2), ("Bea", 3)]);
        assert!(folded_parts(&two.draw()) < 2);
    }

    fn folded_parts(pairs: &Pairs) -> usize {
        pairs.pairs.iter().map(|pair| pair.fold).collect::<HashSet<_>>().len()
    }
}
