//! COCO's classes as Rekognition's labels: names, parents, aliases and categories, as far as AWS's list of labels has them.

use vision::OBJECT_CLASSES;

/// A label.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) name: &'static str,
    /// From the general to the special.
    pub(crate) parents: &'static [&'static str],
    pub(crate) category: &'static str,
    pub(crate) alias: Option<&'static str>,
}

const fn term(
    name: &'static str,
    parents: &'static [&'static str],
    category: &'static str,
    alias: Option<&'static str>,
) -> Term {
    Term {
        name,
        parents,
        category,
        alias,
    }
}

const ANIMALS: &str = "Animals and Pets";
const CLOTHES: &str = "Apparel and Accessories";
const FOOD: &str = "Food and Beverage";
const HOME: &str = "Furniture and Furnishings";
const KITCHEN: &str = "Kitchen and Dining";
const HOUSE: &str = "Home Appliances";
const SPORTS: &str = "Sports";
const STREETS: &str = "Transport and Logistics";
const TECHNOLOGY: &str = "Technology and Computing";
const VEHICLES: &str = "Vehicles and Automotive";

const MAMMAL: &[&str] = &["Animal", "Mammal"];
const PET: &[&str] = &["Animal", "Mammal", "Pet"];
const VEHICLE: &[&str] = &["Transportation", "Vehicle"];

/// In the order of [`OBJECT_CLASSES`].
const TERMS: [Term; OBJECT_CLASSES.len()] = [
    term("Person", &[], "Person Description", Some("Human")),
    term("Bicycle", VEHICLE, VEHICLES, Some("Bike")),
    term("Car", VEHICLE, VEHICLES, Some("Automobile")),
    term("Motorcycle", VEHICLE, VEHICLES, Some("Motor Bike")),
    term("Airplane", VEHICLE, VEHICLES, Some("Aeroplane")),
    term("Bus", VEHICLE, VEHICLES, None),
    term("Train", VEHICLE, VEHICLES, None),
    term("Truck", VEHICLE, VEHICLES, None),
    term("Boat", VEHICLE, VEHICLES, None),
    term("Traffic Light", &["Light"], STREETS, None),
    term("Fire Hydrant", &["Hydrant"], STREETS, None),
    term("Stopsign", &["Road Sign", "Sign", "Symbol"], STREETS, Some("Stop Sign")),
    term("Parking Meter", &[], STREETS, None),
    term("Bench", &["Furniture"], HOME, None),
    term("Bird", &["Animal"], ANIMALS, None),
    term("Cat", PET, ANIMALS, None),
    term("Dog", &["Animal", "Canine", "Mammal", "Pet"], ANIMALS, None),
    term("Horse", MAMMAL, ANIMALS, None),
    term("Sheep", &["Animal", "Livestock", "Mammal"], ANIMALS, None),
    term("Cow", &["Animal", "Cattle", "Livestock", "Mammal"], ANIMALS, None),
    term("Elephant", &["Animal", "Mammal", "Wildlife"], ANIMALS, None),
    term("Bear", &["Animal", "Mammal", "Wildlife"], ANIMALS, None),
    term("Zebra", &["Animal", "Mammal", "Wildlife"], ANIMALS, None),
    term("Giraffe", &["Animal", "Mammal", "Wildlife"], ANIMALS, None),
    term("Backpack", &["Bag"], CLOTHES, None),
    term("Umbrella", &["Canopy"], CLOTHES, None),
    term("Handbag", &["Accessories", "Bag"], CLOTHES, None),
    term("Tie", &["Accessories", "Formal Wear"], CLOTHES, None),
    term("Suitcase", &["Baggage"], CLOTHES, None),
    term("Frisbee", &["Toy"], SPORTS, None),
    term("Skis", &[], SPORTS, None),
    term("Snowboard", &[], SPORTS, None),
    term("Ball", &[], SPORTS, None),
    term("Kite", &["Toy"], SPORTS, None),
    term("Baseball Bat", &["Baseball", "Sport"], SPORTS, None),
    term(
        "Baseball Glove",
        &["Baseball", "Clothing", "Glove", "Sport"],
        SPORTS,
        None,
    ),
    term("Skateboard", &[], SPORTS, None),
    term("Surfboard", &[], SPORTS, None),
    term("Tennis Racket", &["Racket", "Sport", "Tennis"], SPORTS, None),
    term("Bottle", &[], KITCHEN, None),
    term("Wine Glass", &["Glass"], KITCHEN, None),
    term("Cup", &[], KITCHEN, None),
    term("Fork", &["Cutlery"], KITCHEN, None),
    term("Knife", &["Blade", "Weapon"], KITCHEN, None),
    term("Spoon", &["Cutlery"], KITCHEN, None),
    term("Bowl", &[], KITCHEN, None),
    term("Banana", &["Food", "Fruit", "Plant", "Produce"], FOOD, None),
    term("Apple", &["Food", "Fruit", "Plant", "Produce"], FOOD, None),
    term("Sandwich", &["Food"], FOOD, None),
    term(
        "Orange",
        &["Citrus Fruit", "Food", "Fruit", "Plant", "Produce"],
        FOOD,
        None,
    ),
    term("Broccoli", &["Food", "Plant", "Produce", "Vegetable"], FOOD, None),
    term("Carrot", &["Food", "Plant", "Produce", "Vegetable"], FOOD, None),
    term("Hot Dog", &["Food"], FOOD, None),
    term("Pizza", &["Food"], FOOD, None),
    term("Donut", &["Food", "Sweets"], FOOD, None),
    term("Cake", &["Dessert", "Food"], FOOD, None),
    term("Chair", &["Furniture"], HOME, None),
    term("Couch", &["Furniture"], HOME, None),
    term("Potted Plant", &["Plant"], HOME, None),
    term("Bed", &["Furniture"], HOME, None),
    term("Dining Table", &["Furniture", "Table"], HOME, None),
    term("Toilet", &["Bathroom", "Indoors", "Room"], HOME, None),
    term(
        "TV",
        &["Electronics", "Hardware", "Screen"],
        TECHNOLOGY,
        Some("Television"),
    ),
    term("Laptop", &["Computer", "Electronics", "Pc"], TECHNOLOGY, None),
    term(
        "Mouse",
        &["Computer Hardware", "Electronics", "Hardware"],
        TECHNOLOGY,
        None,
    ),
    term("Remote Control", &["Electronics"], TECHNOLOGY, None),
    term(
        "Computer Keyboard",
        &["Computer Hardware", "Electronics", "Hardware"],
        TECHNOLOGY,
        None,
    ),
    term(
        "Mobile Phone",
        &["Electronics", "Phone"],
        TECHNOLOGY,
        Some("Cell Phone"),
    ),
    term("Microwave", &["Appliance", "Device", "Electrical Device"], HOUSE, None),
    term("Oven", &["Appliance", "Device", "Electrical Device"], HOUSE, None),
    term("Toaster", &["Appliance", "Device", "Electrical Device"], HOUSE, None),
    term("Sink", &[], HOME, None),
    term(
        "Refrigerator",
        &["Appliance", "Device", "Electrical Device"],
        HOUSE,
        None,
    ),
    term("Book", &["Publication"], "Education", None),
    term("Clock", &[], HOME, None),
    term("Vase", &["Jar", "Pottery"], HOME, None),
    term("Scissors", &[], "Tools and Machinery", None),
    term("Teddy Bear", &["Toy"], "Toys and Gaming", None),
    term("Blow Dryer", &["Appliance", "Device", "Electrical Device"], HOUSE, None),
    term(
        "Toothbrush",
        &["Brush", "Device", "Tool"],
        "Beauty and Personal Care",
        None,
    ),
];

/// The label of a class of objects.
pub(crate) fn of(class: u8) -> Option<&'static Term> {
    TERMS.get(usize::from(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_label_of_its_own_under_its_own_name() {
        let mut names: Vec<&str> = TERMS.iter().map(|term| term.name).collect();
        for (class, name) in [
            (0, "Person"),
            (15, "Cat"),
            (16, "Dog"),
            (28, "Suitcase"),
            (62, "TV"),
            (79, "Toothbrush"),
        ] {
            assert_eq!(of(class).unwrap().name, name);
        }
        assert!(of(80).is_none());
        // Most are COCO's names in capitals: a shifted row would break nearly all.
        let alike = OBJECT_CLASSES
            .iter()
            .zip(&TERMS)
            .filter(|(class, term)| class.eq_ignore_ascii_case(term.name))
            .count();
        assert!(alike >= 70, "{alike}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TERMS.len());
    }
}
